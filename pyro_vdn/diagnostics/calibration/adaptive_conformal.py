"""Adaptive conformal prediction: intervals over a series that drifts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level, refuse_where
from pyro_vdn.diagnostics.calibration._adaptive_state import AdaptiveState
from pyro_vdn.diagnostics.calibration.conformal import checked_scale
from pyro_vdn.diagnostics.scoring.intervals import Interval, check_interval
from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive


@dataclass(frozen=True, eq=False)
class AdaptiveRun:
    """What adaptive intervals did over a series.

    Args:
        lower: Lower bounds, shape `(time, ...)`; infinite where everything was to be included.
        upper: Upper bounds, shape `(time, ...)`; below `lower` where nothing was.
        missed: 1 where the target lay outside, 0 where inside, NaN where it is missing, shape
            `(time, ...)`.
        alpha: Miss rates asked for at each time, shape `(time, ...)`.

    Example:
        >>> zero, seen = torch.zeros(2, 1), torch.tensor([[0.0], [1.0]])
        >>> AdaptiveRun(zero, zero, seen, zero).coverage()
        tensor([0.5000])
    """

    lower: Tensor
    upper: Tensor
    missed: Tensor
    alpha: Tensor

    def coverage(self) -> Tensor:
        """Return the share of targets inside over time, shape `(...)`."""
        return 1.0 - self.missed.nanmean(dim=0)


class AdaptiveConformal:
    r"""Widen predicted intervals by the scores of recent times, at a level that learns from misses.

    .. math:: \alpha_{t+1} = \alpha_t + \gamma \, (\alpha - \mathrm{err}_t), \qquad
        [l_t - q_t s_t, \ u_t + q_t s_t], \quad q_t = E_{(\lceil (n + 1)(1 - \alpha_t) \rceil)}

    with :math:`E` the scores of :class:`SplitConformal` in a window of n recent times and
    :math:`\alpha = 1 - \ell`. Nothing is assumed of the series, neither exchangeable nor
    stationary. Whatever comes, over any T times

    .. math:: \Big| \frac{1}{T} \sum_t \mathrm{err}_t - \alpha \Big| \le
        \frac{\max(\alpha_1, 1 - \alpha_1) + h \gamma}{\gamma T}

    with h the delay. That is a statement about the long run: the interval of one time may be
    infinite (where :math:`\alpha_t \le 0`, or the window holds too few scores for the level) or
    empty (where :math:`\alpha_t \ge 1`).

    Forecasts of several steps: the truth of step h is known h times later, so each entry has its
    delay; until then its error moves nothing and its score is in no window.

    Args:
        level: Share :math:`\ell` in (0, 1) that is to lie inside.
        gamma: Step size :math:`\gamma`, positive. Larger ones follow faster and waver more.
        window: Most recent scores that count, per entry.
        delay: Times until the truth is known, at least 1, a number or one that broadcasts to the
            entries of a time: for `(steps, outputs)`, ``torch.arange(1, steps + 1)[:, None]``.

    Raises:
        InputError: If the level lies outside (0, 1), or another setting is not positive.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> target = torch.randn(800, generator=draw) * torch.linspace(1, 3, 800)
        >>> mean = torch.zeros(800)
        >>> run = AdaptiveConformal(0.9, 0.05, window=100).run(mean, mean, target)
        >>> abs(float(run.coverage()) - 0.9) < 0.01
        True

    Source: Gibbs and Candes, *Adaptive Conformal Inference Under Distribution Shift*, 2021; the
    bound with a delay: each entry makes at most h more errors after its level has reached zero.
    """

    def __init__(
        self, level: float, gamma: float = 0.01, *, window: int = 500, delay: int | Tensor = 1
    ) -> None:
        check_level(level)
        check_positive(window=window)
        if not (gamma > 0 and math.isfinite(gamma)):
            raise InputError("gamma", expected="a positive step", got=repr(gamma), hint="0.01")
        self.level, self.gamma, self.window = level, gamma, window
        self.delay = torch.as_tensor(delay)
        if self.delay.is_floating_point() or self.delay.numel() == 0 or int(self.delay.min()) < 1:
            raise InputError(
                "delay", expected="whole numbers from 1 on", got=str(delay), hint="delay=1"
            )
        self._state: AdaptiveState | None = None

    @property
    def alpha(self) -> Tensor:
        """Miss rate asked for at present, per entry, shape `(...)`; `()` before the first time."""
        start = torch.tensor(1.0 - self.level, dtype=torch.float64)
        return start if self._state is None else self._state.alpha

    def bound(self, times: int) -> Tensor:
        """Return how far the share of misses over `times` times can be from `1 - level`.

        Args:
            times: Number of times, from the first one on.

        Returns:
            Largest distance, per delay, shape of `delay`.

        Raises:
            InputError: If the number is not positive.
        """
        check_positive(times=times)
        reach = max(self.level, 1.0 - self.level) + self.delay * self.gamma
        return reach / (self.gamma * times)

    def predict(self, lower: Tensor, upper: Tensor, *, scale: Tensor | None = None) -> Interval:
        """Issue the intervals of the next time; call `update` before the one after it.

        Args:
            lower: Predicted lower bounds, or the mean, shape `(...)`.
            upper: Predicted upper bounds, shape `(...)`.
            scale: What scores are divided by, positive, shape `(...)`; nothing by default.

        Returns:
            The intervals, shape `(...)` each; infinite or empty as said above.

        Raises:
            InputError: If shapes disagree with each other or with earlier times, a value is not
                finite, bounds cross or a scale is not positive.
        """
        check_interval(lower, upper, lower)
        scale = checked_scale(scale, lower)
        if self._state is None:
            self._state = self._start(lower)
        state = self._state
        _check_shape("lower", lower, state.alpha.shape)
        margin = state.window.quantile(1.0 - state.alpha)
        interval = Interval(lower - margin * scale, upper + margin * scale)
        state.push(torch.stack([lower, upper, scale, *interval]))
        return interval

    def update(self, target: Tensor) -> Tensor:
        """Learn from truths that have become known since the last `predict`.

        Args:
            target: Truths of the intervals issued `delay` times ago (1 is the latest), shape
                `(...)`; NaN where none is known, as at the first times of a delay. An observed
                series gives its present value for all steps: each was forecast from another time.

        Returns:
            1 where such a truth lay outside the interval that was issued for it, 0 where inside,
            NaN where none is known, shape `(...)`.

        Raises:
            InputError: If shapes disagree, a value is infinite, or nothing has been issued.
        """
        state = self._state
        if state is None:
            raise InputError(
                "target", expected="intervals issued before", got="none", hint="predict(...) first"
            )
        _check_shape("target", target, state.alpha.shape)
        refuse_where(torch.isinf(target), "target", target, "finite values, NaN where unknown")
        lower, upper, scale, low, high = state.issued_before(self._delays(target))
        known = ~(torch.isnan(target) | torch.isnan(lower))
        missed = ((target < low) | (target > high)).to(low.dtype)
        step = self.gamma * (1.0 - self.level - missed)
        state.alpha = torch.where(known, state.alpha + step, state.alpha)
        state.window.add(torch.maximum(lower - target, target - upper) / scale, known)
        error: Tensor = missed.masked_fill(~known, math.nan)
        return error

    def run(
        self, lower: Tensor, upper: Tensor, target: Tensor, *, scale: Tensor | None = None
    ) -> AdaptiveRun:
        """Go through a series: issue each time's intervals from what is known by then.

        Args:
            lower: Predicted lower bounds, or the mean, shape `(time, ...)`.
            upper: Predicted upper bounds, shape `(time, ...)`.
            target: Truths of those predictions, shape `(time, ...)`; NaN where missing.
            scale: As in `predict`, shape `(time, ...)`.

        Returns:
            Intervals, misses and levels over time. The truths of the last times, known only after
            the last prediction, are learned from too.

        Raises:
            InputError: As `predict` and `update`.
        """
        if target.ndim == 0 or len(target) == 0:
            raise InputError(
                "target",
                expected="shape (time, ...) with at least one time",
                got=f"shape {tuple(target.shape)}",
                hint="stack times along the leftmost dimension",
            )
        for what, value in (("lower", lower), ("upper", upper), ("scale", scale)):
            if value is not None:
                _check_shape(what, value, target.shape)
        bounds, alphas = [], []
        scale = torch.ones_like(lower) if scale is None else scale
        for t in range(len(target)):
            if t > 0:
                self.update(self._known(target, t))
            bounds.append(self.predict(lower[t], upper[t], scale=scale[t]))
            alphas.append(self.alpha)
        assert self._state is not None
        for t in range(len(target), len(target) + self._longest):
            self.update(self._known(target, t))
            self._state.push(None)
        low, high = (torch.stack(side) for side in zip(*bounds, strict=True))
        missed = ((target < low) | (target > high)).to(low.dtype)
        missed = missed.masked_fill(torch.isnan(target), math.nan)
        return AdaptiveRun(low, high, missed, torch.stack(alphas))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what has been learned, as tensors; empty before the first prediction."""
        return {} if self._state is None else self._state.tensors()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what another one of the same settings has learned.

        Args:
            state: What its `state_dict` returned.

        Raises:
            InputError: If it was made under another window or longest delay.
        """
        if not state:
            self._state = None
            return
        own, given = (self.window, self._longest), (len(state["scores"]), len(state["issued"]))
        if own != given:
            raise InputError(
                "state",
                expected=f"a window of {own[0]} and a longest delay of {own[1]}",
                got=f"{given[0]} and {given[1]}",
                hint="make it with the settings of the one that was saved",
            )
        self._state = AdaptiveState.of(state)

    @property
    def _longest(self) -> int:
        return int(self.delay.max())

    def _start(self, like: Tensor) -> AdaptiveState:
        self._delays(like)  # refuses those that do not fit
        return AdaptiveState.start(
            like, 1.0 - self.level, window=self.window, longest=self._longest
        )

    def _delays(self, like: Tensor) -> Tensor:
        """Return the delay of each entry, of the shape of `like`."""
        try:
            return self.delay.to(like.device).expand(like.shape)
        except RuntimeError as error:
            raise InputError(
                "delay",
                expected=f"a shape that broadcasts to the entries of a time, {tuple(like.shape)}",
                got=f"shape {tuple(self.delay.shape)}",
                hint="torch.arange(1, steps + 1)[:, None] for (steps, outputs)",
            ) from error

    def _known(self, target: Tensor, time: int) -> Tensor:
        """Return the truths that become known at a time, NaN where there is none."""
        at = time - self._delays(target[0])
        value = target.gather(0, at.clamp(0, len(target) - 1)[None])[0]
        return value.masked_fill((at < 0) | (at >= len(target)), math.nan)


def _check_shape(what: str, value: Tensor, shape: torch.Size) -> None:
    if value.shape != shape:
        raise InputError(
            what,
            expected=f"shape {tuple(shape)}",
            got=f"shape {tuple(value.shape)}",
            hint="give every entry of a time its prediction and its truth",
        )
