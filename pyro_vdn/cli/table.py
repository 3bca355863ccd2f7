"""The table of a run's scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from pyro_vdn.train.run import RunReport

_BETTER_LOW = {
    "mse": "MSE",
    "mae": "MAE",
    "nll": "NLL per output",
    "joint_nll": "joint NLL per output",
    "crps": "CRPS",
}
_ROWS = {
    **_BETTER_LOW,
    "coverage_90": "coverage of 90 % interval",
    "energy_score": "energy score",
    "kl_per_unit": "KL per unit (nats)",
    "active_share": "active units",
    "parameters": "parameters",
    "training_seconds": "training (s)",
    "seconds": "scoring (s)",
}
_SHARES = ("coverage_90", "active_share")
_WHOLE = ("parameters", "training_seconds", "seconds")
_NAMES = {"neurons": "neurons", "twin": "deterministic twin"}


def show_report(report: RunReport) -> None:
    """Print the scores of a run on standard output, the better of two in bold.

    Args:
        report: The scores.
    """
    table = Table(
        title=f"{report.data}: {report.task}",
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
    )
    table.add_column("")
    for name in report.models:
        table.add_column(_NAMES[name], justify="right")
    for key, label in _ROWS.items():
        values = [scores.get(key) for scores in report.models.values()]
        if any(value is not None for value in values):
            table.add_row(label, *_cells(key, values))
    console = Console(highlight=False)
    console.print(table)
    console.print(_caption(report), soft_wrap=True)


def _cells(key: str, values: list[Any]) -> list[str]:
    low = key in _BETTER_LOW or key == "energy_score"
    best = min((value for value in values if value is not None), default=None)
    cells = []
    for value in values:
        text = _text(key, value)
        is_best = low and len(values) > 1 and value == best
        cells.append(f"[bold]{text}[/bold]" if is_best else text)
    return cells


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key in _SHARES:
        return f"{100 * value:.1f} %"
    if key in _WHOLE:
        return f"{value:,.0f}"
    return f"{value:.4f}"


def _caption(report: RunReport) -> str:
    return (
        f"Tested on {report.tested_on}, in standard units. MSE of the predictive mean, MAE of the "
        "median of draws; CRPS and energy score are fair. NLL in nats, with the neurons integrated "
        f"out in closed form.\nRun folder: {report.folder}"
    )
