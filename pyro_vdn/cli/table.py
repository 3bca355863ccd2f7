"""The table of a run's scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyro_vdn.train.members import method_label

if TYPE_CHECKING:
    from pyro_vdn.train.run import RunReport


@dataclass(frozen=True)
class _Layout:
    """The rows of a task's table, and what stands below it.

    Args:
        low: Headings of scores that are better when low.
        high: Headings of scores that are better when high.
        rows: Headings of what is only told.
        order: All of them from top to bottom.
        caption: What the scores are.
    """

    low: dict[str, str]
    high: dict[str, str]
    rows: dict[str, str]
    order: tuple[str, ...]
    caption: str

    @property
    def headings(self) -> dict[str, str]:
        """Every heading, from top to bottom."""
        together = {**self.low, **self.high, **self.rows}
        return {name: together[name] for name in (*self.order, *_COSTS)}


_COSTS = ("parameters", "training_seconds", "seconds")
_ROWS = {
    "kl_per_unit": "KL per unit (nats)",
    "active_share": "active units",
    "parameters": "parameters",
    "training_seconds": "training (s)",
    "seconds": "scoring (s)",
}
_NUMBERS = _Layout(
    low={
        "mse": "MSE",
        "mae": "MAE",
        "nll": "NLL per output",
        "joint_nll": "joint NLL per output",
        "crps": "CRPS",
        "energy_score": "energy score",
    },
    high={},
    rows={"coverage_90": "coverage of 90 % interval", **_ROWS},
    order=(
        *("mse", "mae", "nll", "joint_nll", "crps", "coverage_90", "energy_score"),
        *("kl_per_unit", "active_share"),
    ),
    caption="in standard units. MSE of the predictive mean, MAE of the median of draws; CRPS and "
    "energy score are fair. NLL in nats, of the predictive density in closed form or, of MC "
    "dropout, averaged over draws. Standard errors over rows that do not overlap.",
)
_LANGUAGE = _Layout(
    low={
        "nll": "NLL per token (nats)",
        "perplexity": "perplexity",
        "bits_per_character": "bits per character",
        "ece": "calibration error (ECE)",
        "adaptive_ece": "the same, equal masses",
        "brier": "Brier score",
        "cvar_nll": "CVaR of the NLL, worst 5 %",
    },
    high={"accuracy": "accuracy"},
    rows={
        "mutual_information": "mutual information (nats)",
        "conditional_variance": "conditional variance",
        "flip_rate": "flip rate",
        **_ROWS,
    },
    order=(
        *("nll", "perplexity", "bits_per_character", "accuracy", "ece", "adaptive_ece", "brier"),
        *("cvar_nll", "mutual_information", "conditional_variance", "flip_rate"),
        *("kl_per_unit", "active_share"),
    ),
    caption="of the predictive distribution averaged over draws. ECE over 15 bins; flip rate is "
    "the share of pairs of draws whose most probable tokens differ. Standard errors over blocks.",
)
_LAYOUTS = {"forecasting": _NUMBERS, "regression": _NUMBERS, "language": _LANGUAGE}
_SHARES = ("coverage_90", "active_share", "accuracy", "flip_rate")
_WITH_ERRORS = ("nll", "crps")
_TINY = ("conditional_variance",)


def show_report(report: RunReport) -> None:
    """Print the scores of a run on standard output, the best in bold.

    Args:
        report: The scores.
    """
    table = Table(
        title=Text(f"{report.data}: {report.task}"),  # a name such as [red].csv is no markup
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("")
    for name, scores in report.models.items():
        table.add_column(method_label(name, scores["networks"]), justify="right")
    layout = _LAYOUTS[report.task]
    for key, label in layout.headings.items():
        values = [scores.get(key) for scores in report.models.values()]
        if any(value is not None for value in values):
            table.add_row(label, *_cells(layout, key, values))
        errors = [scores.get(f"{key}_se") for scores in report.models.values()]
        if key in _WITH_ERRORS and any(error is not None for error in errors):
            table.add_row("  ± std. error", *(_text(key, error) for error in errors))
    console = Console(highlight=False)
    console.print(table)
    console.print(Text(_caption(report)), soft_wrap=True)


def _cells(layout: _Layout, key: str, values: list[Any]) -> list[str]:
    known = [value for value in values if value is not None]
    best = (max if key in layout.high else min)(known, default=None)
    cells = []
    for value in values:
        text = _text(key, value)
        ranked = key in layout.low or key in layout.high
        is_best = ranked and len(values) > 1 and value == best
        cells.append(f"[bold]{text}[/bold]" if is_best else text)
    return cells


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key in _SHARES:
        return f"{100 * value:.1f} %"
    if key in _TINY:
        return f"{value:.1e}"
    if key in _COSTS:
        return f"{value:,.0f}"
    return f"{value:.4f}"


def _caption(report: RunReport) -> str:
    said = _LAYOUTS[report.task].caption
    return f"Tested on {report.tested_on}, {said}\nRun folder: {report.folder}"
