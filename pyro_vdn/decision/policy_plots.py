"""Figures of policies and of draws used, drawn without global state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_vdn.decision._bootstrap import Estimate
from pyro_vdn.decision.adaptive_draws import AdaptiveDraws
from pyro_vdn.decision.policy_report import ORACLE, PolicyReport
from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_NARROW,
    INK,
    MUTED,
    WARM,
    legend,
    new_figure,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POLICY = "this policy"
_MARKER, _GAP = 7.0, 9.0
"""Points: size of a marker, and from the end of an interval to its label, clear of a marker."""


def plot_policy(
    report: PolicyReport, *, title: str = "", cost_label: str = "mean cost (unit of the risk)"
) -> Figure:
    """Draw what became of the cases, and what that cost beside the alternatives.

    On the left the share of each action, with the mean risk it took and its mean cost. On the right
    the mean cost of the policy, of doing one thing always, and of the oracle, each with its
    interval, and beside each of these the paired difference: the mean cost of the policy less that
    of the other, as in the report. Below 0, the policy is cheaper.

    Args:
        report: What :meth:`Policy.evaluate` returned.
        title: Title of the figure.
        cost_label: Label of the costs, with their unit.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> from pyro_vdn.decision import Costs, Policy, PolicyCases
        >>> cases = PolicyCases([0.1, 0.2, 0.7, 0.9], [0.0, 0.0, 1.0, 1.0])
        >>> report = Policy.choose(cases, Costs(abstain=0.3)).evaluate(cases)
        >>> [text.get_text() for text in plot_policy(report).axes[0].get_yticklabels()]
        ['accept', 'abstain']
    """
    rows = max(len(report.actions), 1 + len(report.alternatives))
    figure = new_figure(1.5 + 0.55 * rows)
    shares, costs = figure.subplots(1, 2, width_ratios=(1.0, 1.25))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK, parse_math=False)
    _draw_shares(shares, report)
    _draw_costs(costs, report, cost_label)
    return figure


def plot_draws(found: AdaptiveDraws, *, title: str = "Draws used") -> Figure:
    """Draw how many rows stopped at each look, settled or for want of further draws.

    Args:
        found: What :func:`adaptive_draws` returned.
        title: Title of the figure.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> from pyro_vdn.decision import adaptive_draws
        >>> noise = np.random.default_rng(0)
        >>> found = adaptive_draws(
        ...     lambda rows, count: noise.normal(size=(count, len(rows))), 9, tolerance=0.5
        ... )
        >>> plot_draws(found).axes[0].get_xlabel()
        'draws of a row'
    """
    figure = new_figure(4.8)
    axes = figure.subplots()
    at = np.arange(len(found.looks))
    settled, out = (
        np.array([100 * np.mean(chosen & (found.draws == look)) for look in found.looks])
        for chosen in (found.settled, ~found.settled)
    )
    axes.bar(at, settled, color=ACCENT, width=0.8, label="settled")
    if out.any():
        axes.bar(at, out, bottom=settled, color=WARM, width=0.8, label="out of draws")
    axes.set_ylim(0.0, 1.08 * float((settled + out).max()))
    axes.set_xticks(at, [str(look) for look in found.looks])
    mean = found.draws.mean()
    said = f"mean {mean:.0f}, {100 * found.saved:.0f} % fewer than {found.looks[-1]} for all"
    style(axes, title=f"{title}: {said}", x="draws of a row", y="rows (%)")
    axes.grid(visible=False, axis="x")
    legend(axes, loc="upper right")
    return figure


def _draw_shares(axes: Axes, report: PolicyReport) -> None:
    style(axes, title="What became of the cases", x=f"share of {report.cases:,} cases (%)")
    names = list(report.actions)
    shares = np.array([100 * report.actions[name].share for name in names])
    places = np.arange(len(names))
    axes.barh(places, shares, color=[_colour(name) for name in names], height=0.62)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    widest = max(float(shares.max()), 1.0)
    axes.set_xlim(0.0, 1.95 * widest)
    axes.set_xticks([tick for tick in axes.get_xticks() if tick <= min(100.0, 1.15 * widest)])
    for place, name in enumerate(names):
        axes.text(
            shares[place] + 0.02 * widest,
            place,
            _said(report, name),
            va="center",
            fontsize=10,
            color=INK,
        )


def _said(report: PolicyReport, name: str) -> str:
    """Return share, risk and cost of an action in words."""
    taken = report.actions[name]
    if taken.share == 0.0:
        return "none"
    risk = "" if math.isnan(taken.risk) else f"risk {taken.risk:.3g}, "
    return f"{100 * taken.share:.1f} %: {risk}cost {taken.cost:.3g}"


def _draw_costs(axes: Axes, report: PolicyReport, label: str) -> None:
    style(
        axes,
        title=f"Mean cost, with {100 * report.level:g} % intervals",
        x=f"{label}\nnumbers: this policy less the other (below 0: it is cheaper)",
    )
    ways = {_POLICY: report.cost} | {name: way.cost for name, way in report.alternatives.items()}
    places = np.arange(len(ways))
    axes.axvline(report.cost.value, color=BAND_NARROW, lw=1.2, ls=(0, (4, 3)), zorder=1)
    for place, (name, cost) in enumerate(ways.items()):
        colour = {_POLICY: ACCENT, ORACLE: MUTED}.get(name, WARM)
        axes.hlines(place, cost.lower, cost.upper, color=colour, lw=2.4)
        axes.plot(cost.value, place, "o", color=colour, ms=_MARKER)
    axes.set_yticks(places, list(ways))
    axes.set_ylim(len(ways) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    top = max(cost.upper for cost in ways.values())
    low = min(cost.lower for cost in ways.values())
    room = max(top - low, 1e-12)
    axes.set_xlim(low - 0.06 * room, top + 0.75 * room)
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= top + 0.1 * room])
    text: dict[str, Any] = {"va": "center", "fontsize": 10, "color": INK}
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # hides the dashed line
    for place, way in enumerate(report.alternatives.values(), start=1):
        axes.annotate(
            _difference(way.difference),
            (way.cost.upper, place),
            (_GAP, 0),
            textcoords="offset points",
            bbox=ground,
            **text,
        )


def _difference(difference: Estimate) -> str:
    """Return how much more the policy costs than an alternative, with the sign of the report."""
    return f"{difference.value:+.3g} [{difference.lower:+.3g}, {difference.upper:+.3g}]"


def _colour(name: str) -> str:
    """Return the colour of what a case comes to in the end."""
    return {"accept": ACCENT, "fall back": "#d9a441", "abstain": MUTED}[name.split(", ")[-1]]
