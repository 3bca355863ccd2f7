"""Series in sequence for the memory benchmark, and the ways in which their inputs go missing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from pyro_vdn.datasets import Sequences, SequenceSplits, load_series, window_sequences


@dataclass(frozen=True)
class Setting:
    """How a series is cut into windows in sequence.

    Args:
        name: What tables call it.
        series: Name of the series.
        window: Length of a window, in steps of the series.
        horizon: Length of the target after each window.
        steps: Windows in a sequence.
        context: Windows at its start that are never dropped and not scored.
        strides: Steps from one sequence to the next, for training and for the other parts.

    Example:
        >>> [setting.name for setting in SETTINGS]
        ['etth1-day', 'etth1-quarter', 'co2']
    """

    name: str
    series: str
    window: int
    horizon: int
    steps: int
    context: int
    strides: tuple[int, int]

    def load(self) -> SequenceSplits:
        """Return the sequences of the three parts."""
        return window_sequences(
            load_series(self.series),
            window=self.window,
            horizon=self.horizon,
            steps=self.steps,
            context=self.context,
            strides=self.strides,
        )


#: A day of hours and the day after, four weeks in a row; six hours and the twelve after, ten days
#: in a row; four weeks and the eight after, three years in a row.
SETTINGS = (
    Setting("etth1-day", "etth1", window=24, horizon=24, steps=28, context=7, strides=(5, 36)),
    Setting("etth1-quarter", "etth1", window=6, horizon=12, steps=40, context=8, strides=(5, 36)),
    Setting("co2", "co2", window=4, horizon=8, steps=39, context=13, strides=(1, 3)),
)

#: Share of windows that are dropped.
SHARE = 0.3

COMPLETE = "complete"
DROPPED = "30 % dropped"
GAP = "one long gap"
EITHER = "dropped or gap"


def missing_windows(kind: str, rows: int, steps: int, context: int, generator: Generator) -> Tensor:
    """Choose windows to drop; those of the context stay.

    Args:
        kind: `COMPLETE`; `DROPPED`, each with probability 0.3; `GAP`, between a fifth and two
            fifths of the windows that are not context, in a row; or `EITHER` of the two by row.
        rows: Number of sequences.
        steps: Windows in a sequence.
        context: Windows at its start that stay.
        generator: The source of the choice.

    Returns:
        Boolean, `(rows, steps)`.

    Example:
        >>> dropped = missing_windows(GAP, 2, 20, 10, torch.Generator().manual_seed(0))
        >>> dropped.any(-1).tolist(), bool(dropped[:, :10].any())
        ([True, True], False)
    """
    time = torch.arange(steps)
    after = steps - context
    if kind == COMPLETE:
        return torch.zeros(rows, steps, dtype=torch.bool)
    scattered = torch.rand(rows, steps, generator=generator) < SHARE
    length = torch.randint(after // 5, 2 * after // 5 + 1, (rows, 1), generator=generator)
    places = torch.rand(rows, 1, generator=generator) * (after - length + 1)
    start = context + places.long()
    gap = (time >= start) & (time < start + length)
    if kind == GAP:
        return gap
    if kind == EITHER:
        scattered = torch.where(torch.rand(rows, 1, generator=generator) < 0.5, gap, scattered)
    return scattered & (time >= context)


def with_missing(sequences: Sequences, kind: str, context: int, generator: Generator) -> Sequences:
    """Return sequences of which windows are missing, and targets of the context with them.

    Args:
        sequences: The sequences.
        kind: As in `missing_windows`.
        context: Windows at the start whose inputs stay and whose targets are left out.
        generator: The source of the choice.

    Returns:
        Sequences with NaN in place of what is missing and of what is not scored.

    Example:
        >>> whole = Sequences(torch.zeros(1, 20, 4), torch.zeros(1, 20, 8))
        >>> some = with_missing(whole, COMPLETE, 5, torch.Generator())
        >>> int(some.x.isnan().sum()), int(some.y[..., 0].isnan().sum())
        (0, 5)
    """
    x, y = sequences
    dropped = missing_windows(kind, len(x), x.shape[1], context, generator)
    unscored = torch.arange(x.shape[1]) < context
    return Sequences(
        x.masked_fill(dropped.unsqueeze(-1), torch.nan),
        y.masked_fill(unscored.unsqueeze(-1), torch.nan),
    )
