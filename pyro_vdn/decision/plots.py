"""Figures of decisions, drawn without global state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyro_vdn.decision.risk_coverage import RiskCoverage
from pyro_vdn.diagnostics._figure import ACCENT, INK, MUTED, WARM, legend, new_figure, plain, style
from pyro_vdn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by readers who see few colours, too: they alternate in lightness.
_COLOURS = (ACCENT, WARM, "#d9a441", "#5b4b8a", "#6aa84f", INK, "#c27ba0", "#8c6d46")


def plot_risk_coverage(
    curves: Mapping[str, RiskCoverage],
    *,
    title: str = "Risk of what is accepted",
    risk_label: str = "mean negative log-likelihood of accepted tokens (nats)",
    least_coverage: float = 0.05,
) -> Figure:
    """Draw risk-coverage curves over each other, with the area under each in the legend.

    Curves with bootstrap intervals are drawn in their band, and their area with its interval. A
    dashed line shows the mean risk of all cases, which accepting at random would have: one for
    scores of the same predictions, one in the colour of each curve where predictions differ.

    Args:
        curves: By name of the score or the method, at most eight, all of the same cases.
        title: Title of the figure.
        risk_label: Label of the risk, with its unit.
        least_coverage: Where the coverage axis starts: a few cases alone say little, and would
            stretch the risk axis.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: Without curves, with more than eight, or for a start outside [0, 1).
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> from pyro_vdn.decision import risk_coverage
        >>> curve = risk_coverage([0.1, 0.2, 0.3, 0.4], [0.5, 1.0, 0.7, 2.0])
        >>> plot_risk_coverage({"entropy": curve}).axes[0].get_title(loc="left")
        'Risk of what is accepted'
    """
    _check(curves, least_coverage)
    figure = new_figure(6.4)
    axes = figure.subplots()
    style(axes, title=title, x="coverage: accepted share (%)", y=risk_label)
    colours = dict(zip(curves, _COLOURS, strict=False))
    _draw_at_random(axes, curves, colours)
    # From the highest curve down, as the legend beside it reads.
    for name in sorted(curves, key=lambda name: -curves[name].aurc):
        _draw(axes, name, curves[name], colours[name], least_coverage)
    axes.set_xlim(100 * least_coverage, 100)
    axes.margins(y=0.06)
    legend(axes, loc="center left", bbox_to_anchor=(1.01, 0.5), title=_heading(curves))
    return figure


def _heading(curves: Mapping[str, RiskCoverage]) -> str:
    levels = sorted({curve.level for curve in curves.values() if curve.level is not None})
    bands = ", ".join(f"{100 * level:g} %" for level in levels)
    return "area under the curve" + (f"\n(brackets, band: {bands} interval)" if bands else "")


def _draw_at_random(
    axes: Axes, curves: Mapping[str, RiskCoverage], colours: Mapping[str, str]
) -> None:
    groups = _at_random(curves)
    for mean, names in groups:
        whose = f", {', '.join(names)}" if len(groups) > 1 else ""
        alone = len(groups) > 1 and len(names) == 1
        axes.axhline(
            mean,
            color=colours[names[0]] if alone else MUTED,
            lw=1.1,
            ls=(0, (4, 3)),
            label=plain(f"at random{whose}: {mean:.3f}"),
        )


def _at_random(curves: Mapping[str, RiskCoverage]) -> list[tuple[float, list[str]]]:
    """Return mean risks from the highest down, each with the curves that share it."""
    groups: list[tuple[float, list[str]]] = []
    means = {name: float(curve.risk[-1]) for name, curve in curves.items()}
    for name in sorted(means, key=lambda name: -means[name]):
        # The same risks, added up in another order, differ by rounding.
        if groups and math.isclose(means[name], groups[-1][0], rel_tol=1e-9, abs_tol=1e-12):
            groups[-1][1].append(name)
        else:
            groups.append((means[name], [name]))
    return [(mean, [name for name in curves if name in names]) for mean, names in groups]


def _draw(axes: Axes, name: str, curve: RiskCoverage, colour: str, least: float) -> None:
    shown = curve.coverage >= least
    x = 100 * curve.coverage[shown]
    if curve.lower is not None and curve.upper is not None:
        axes.fill_between(x, curve.lower[shown], curve.upper[shown], color=colour, alpha=0.16, lw=0)
    label = plain(f"{name}: {curve.aurc:.3f}")
    if curve.interval is not None:
        label += f" [{curve.interval.lower:.3f}, {curve.interval.upper:.3f}]"
    axes.plot(x, curve.risk[shown], color=colour, lw=1.8, label=label)


def _check(curves: Mapping[str, RiskCoverage], least_coverage: float) -> None:
    if not 1 <= len(curves) <= len(_COLOURS):
        raise InputError(
            "curves",
            expected=f"between 1 and {len(_COLOURS)} curves",
            got=f"{len(curves)}",
            hint="curves={'entropy': risk_coverage(entropy, nll)}",
        )
    if not 0.0 <= least_coverage < 1.0:
        raise InputError(
            "least_coverage",
            expected="a share in [0, 1)",
            got=repr(least_coverage),
            hint="write 5 % as 0.05",
        )
