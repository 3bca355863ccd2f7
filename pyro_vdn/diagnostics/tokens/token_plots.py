"""Figures of predicted tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_vdn.diagnostics._figure import (
    ACCENT,
    BAND_NARROW,
    INK,
    MUTED,
    WARM,
    legend,
    new_figure,
    plain,
    style,
)
from pyro_vdn.diagnostics.tokens.token_calibration import Reliability
from pyro_vdn.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (ACCENT, WARM, INK, MUTED)
_MARKERS = ("o", "s", "^", "D")
_FEWEST = 20


def plot_reliability(curves: Mapping[str, Reliability] | Reliability) -> Figure:
    """Draw how often the most probable token came, by its probability, and how many tokens.

    Bins of fewer than 20 tokens are left out of the curve: chance alone moves them by a tenth.

    Args:
        curves: What :func:`reliability_curve` returned, or several by name, at most four.

    Returns:
        The figure, 1200 px wide at its own resolution.

    Raises:
        InputError: For no curve or more than four.
        MissingPackageError: If matplotlib is not installed.

    Example:
        >>> import torch
        >>> from pyro_vdn.diagnostics import reliability_curve
        >>> highest = torch.linspace(0.1, 0.9, 500)
        >>> figure = plot_reliability(reliability_curve(highest, highest > 0.5))
        >>> figure.axes[0].get_title(loc="left")
        'Reliability of the most probable token: calibration error 25.9 %'

    Source: Niculescu-Mizil and Caruana, *Predicting Good Probabilities with Supervised Learning*,
    2005.
    """
    named = dict(curves) if isinstance(curves, Mapping) else {"model": curves}
    if not 1 <= len(named) <= len(_COLOURS):
        raise InputError(
            "curves",
            expected=f"1 to {len(_COLOURS)} curves",
            got=str(len(named)),
            hint="reliability_curve(table['max_probability'], table['correct'])",
        )
    figure = new_figure(5.4)
    left, right = figure.subplots(1, 2)
    title = "Reliability of the most probable token"
    if len(named) == 1:
        title += f": calibration error {100 * next(iter(named.values())).error():.1f} %"
    style(left, title=title, x="probability given to it", y="share of tokens for which it came")
    left.plot([0, 1], [0, 1], color=MUTED, lw=1.2, label="calibrated")
    style(right, title="Tokens by that probability", x="probability given to it", y="tokens (%)")
    for at, (name, curve) in enumerate(named.items()):
        look: dict[str, Any] = {"color": _COLOURS[at], "label": plain(name)}
        _draw_curve(left, curve, marker=_MARKERS[at], **look)
        _draw_counts(right, curve, filled=len(named) == 1, **look)
    left.set_xlim(0, 1)
    left.set_ylim(0, 1)
    right.set_xlim(0, 1)
    right.set_ylim(bottom=0)
    legend(left, loc="upper left")
    return figure


def _draw_curve(axes: Axes, curve: Reliability, **look: Any) -> None:
    """Draw accuracy over probability with 95 % intervals, as if tokens were independent."""
    enough = curve.count >= _FEWEST
    confidence, accuracy, count = (
        value[enough].double().numpy() for value in (curve.confidence, curve.accuracy, curve.count)
    )
    half = 1.959964 * np.sqrt(accuracy * (1 - accuracy) / count)
    inside = np.stack([np.minimum(half, accuracy), np.minimum(half, 1 - accuracy)])
    axes.errorbar(confidence, accuracy, inside, lw=1.4, ms=5, capsize=2, clip_on=False, **look)


def _draw_counts(axes: Axes, curve: Reliability, *, filled: bool, **look: Any) -> None:
    share = 100 * curve.count.double() / curve.count.sum()
    edges = curve.edges.numpy()
    if filled:
        axes.bar(edges[:-1], share.numpy(), np.diff(edges), align="edge", color=BAND_NARROW, ec="w")
    else:
        axes.stairs(share.numpy(), edges, lw=1.6, **look)
