from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pyro_vdn.diagnostics import AdaptiveConformal, SplitConformal, interval_coverage
from pyro_vdn.errors import InputError

NAN = float("nan")


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def by_hand(
    target: list[float], level: float, gamma: float, window: int, delay: int
) -> tuple[list[float], list[float], float]:
    """Go through one series forecast as 0, with lists, as the method says."""
    alpha, scores, halves, misses = 1 - level, [], [], []
    for t in range(len(target) + delay):
        if t >= delay:  # the truth of the forecast made `delay` times ago has just come
            truth = target[t - delay]
            misses.append(float(abs(truth) > halves[t - delay]))
            alpha += gamma * (1 - level - misses[-1])
            scores = [*scores, abs(truth)][-window:]
        rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
        halves.append(
            math.inf if rank > len(scores) else -math.inf if rank < 1 else sorted(scores)[rank - 1]
        )
    return halves[: len(target)], misses, alpha


@pytest.mark.parametrize("delay", [1, 3])
def test_run_is_the_method_done_by_hand(delay: int) -> None:
    # Growing, then dying away; so large a step makes both extremes.
    target = torch.cat([normal(90) * torch.linspace(1, 4, 90), 2.0 ** -torch.arange(40.0).double()])
    tracker = AdaptiveConformal(0.8, 0.3, window=20, delay=delay)
    zero = torch.zeros_like(target)
    run = tracker.run(zero, zero, target)
    halves, misses, alpha = by_hand(target.tolist(), 0.8, 0.3, 20, delay)
    torch.testing.assert_close(run.upper, torch.tensor(halves).double())
    torch.testing.assert_close(run.lower, -run.upper)
    torch.testing.assert_close(run.missed, torch.tensor(misses).double())
    assert float(tracker.alpha) == pytest.approx(alpha)
    assert bool(torch.isposinf(run.upper[5:]).any())
    assert bool(torch.isneginf(run.upper).any())  # nothing is inside
    torch.testing.assert_close(run.coverage(), interval_coverage(run.lower, run.upper, target))


def test_steps_of_a_horizon_learn_from_their_own_truths_when_these_are_known() -> None:
    target = normal(90, 3, 2)  # (time, steps, outputs)
    zero = torch.zeros_like(target)
    run = AdaptiveConformal(0.8, 0.1, window=25, delay=torch.arange(1, 4)[:, None]).run(
        zero, zero, target
    )
    for step in range(3):
        for output in range(2):
            series = target[:, step, output].tolist()
            halves, _, _ = by_hand(series, 0.8, 0.1, 25, step + 1)
            torch.testing.assert_close(run.upper[:, step, output], torch.tensor(halves).double())


def test_nothing_that_comes_later_changes_an_interval() -> None:
    target, zero = normal(40, 3), torch.zeros(40, 3).double()
    delay = torch.arange(1, 4)
    changed = target.clone()
    for step in range(3):  # what is not known before the interval of time 30
        changed[30 - step :, step] += 100
    one, other = (
        AdaptiveConformal(0.8, 0.1, delay=delay).run(zero, zero, y) for y in (target, changed)
    )
    torch.testing.assert_close(one.upper[:31], other.upper[:31])
    assert bool((one.upper[31] != other.upper[31]).all())


def test_online_steps_equal_a_run_on_an_observed_series() -> None:
    series = normal(60)
    delay = torch.arange(1, 4)
    # Row t forecasts times t + 1, t + 2, t + 3.
    target = torch.stack([series[1 + h : 51 + h] for h in range(3)], dim=1)
    mean = normal(50, 3, seed=1)
    scale = normal(50, 3, seed=2).exp()
    run = AdaptiveConformal(0.7, 0.05, delay=delay).run(mean, mean, target, scale=scale)
    online = AdaptiveConformal(0.7, 0.05, delay=delay)
    for t in range(50):
        if t > 0:
            missed = online.update(series[t].expand(3))
            early = torch.arange(1, 4) > t
            assert torch.equal(torch.isnan(missed), early)
        low, high = online.predict(mean[t], mean[t], scale=scale[t])
        torch.testing.assert_close(low, run.lower[t])
        torch.testing.assert_close(high, run.upper[t])


@pytest.mark.parametrize("delay", [1, 4])
def test_the_bound_holds_whatever_comes(delay: int) -> None:
    # A series that doubles at every step, one that dies, one that alternates, and noise.
    times = 300
    ramp = torch.arange(times).double()
    target = torch.stack(
        [2.0 ** (ramp / 2), 2.0**-ramp, 1e3 * (ramp % 2), normal(times), -ramp], dim=1
    )
    tracker = AdaptiveConformal(0.9, 0.05, window=50, delay=delay)
    zero = torch.zeros_like(target)
    missed = tracker.run(zero, zero, target).missed
    gap = (missed.mean(dim=0) - 0.1).abs()
    assert float(tracker.bound(times)) == pytest.approx((0.9 + delay * 0.05) / (0.05 * times))
    assert float(gap.max()) <= float(tracker.bound(times))
    # The bound is about as tight as it can be: the first series nearly reaches it.
    assert float(gap.max()) > 0.2 * float(tracker.bound(times))


def test_long_run_coverage_survives_a_shift_that_breaks_a_fixed_margin() -> None:
    times, series = 600, 10
    spread = torch.where(torch.arange(times) < 200, 1.0, 3.0).double()
    target = spread[:, None] * normal(times, series)
    zero = torch.zeros_like(target)
    fixed = SplitConformal.fit(*(v[:200] for v in (zero, zero, target)), 0.9)
    after = (v[200:] for v in (*fixed.apply(zero, zero), target))
    assert float(interval_coverage(*after)) < 0.5
    run = AdaptiveConformal(0.9, 0.02, window=100).run(zero, zero, target)
    bound = (0.9 + 0.02) / (0.02 * times)
    assert float((run.coverage() - 0.9).abs().max()) <= bound
    assert float(run.coverage().mean()) == pytest.approx(0.9, abs=0.01)
    assert float(run.missed[300:].mean()) == pytest.approx(0.1, abs=0.015)


def test_missing_truths_teach_nothing() -> None:
    target, zero = normal(50), torch.zeros(50).double()
    target[10:30] = NAN
    tracker = AdaptiveConformal(0.8, 0.1)
    run = tracker.run(zero, zero, target)
    assert torch.equal(torch.isnan(run.missed), torch.isnan(target))
    assert len(set(run.alpha[11:31].tolist())) == 1
    kept = target[~torch.isnan(target)]
    same = AdaptiveConformal(0.8, 0.1)
    other = same.run(zero[:30], zero[:30], kept)
    torch.testing.assert_close(tracker.alpha, same.alpha)
    torch.testing.assert_close(run.coverage(), other.coverage())


def test_a_saved_state_goes_on_where_it_stopped() -> None:
    target, zero = normal(60, 2), torch.zeros(60, 2).double()
    whole = AdaptiveConformal(0.8, 0.1, window=15)
    assert whole.state_dict() == {}
    parts = AdaptiveConformal(0.8, 0.1, window=15)
    parts.run(zero[:40], zero[:40], target[:40])
    saved = parts.state_dict()
    resumed = AdaptiveConformal(0.8, 0.1, window=15)
    resumed.load_state_dict(saved)
    parts.run(zero[40:], zero[40:], -target[40:])  # what it does then is no part of what was saved
    last = resumed.run(zero[40:], zero[40:], target[40:])
    expected = whole.run(zero, zero, target)
    torch.testing.assert_close(last.upper, expected.upper[40:])
    resumed.load_state_dict({})
    assert resumed.alpha.shape == ()


def begun(**settings: object) -> AdaptiveConformal:
    tracker = AdaptiveConformal(0.9, 0.1, window=9, **settings)  # type: ignore[arg-type]
    tracker.predict(torch.zeros(2), torch.zeros(2))
    return tracker


TWO, SERIES = torch.zeros(2), torch.zeros(5, 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: AdaptiveConformal(1.0), r"level: .* got 1.0"),
        (lambda: AdaptiveConformal(0.9, 0.0), r"gamma: expected a positive step, got 0.0"),
        (lambda: AdaptiveConformal(0.9, window=0), r"window"),
        (lambda: AdaptiveConformal(0.9, delay=0), r"delay: expected whole numbers from 1 on"),
        (lambda: AdaptiveConformal(0.9, delay=TWO + 1), r"delay: expected whole numbers"),
        (lambda: AdaptiveConformal(0.9).update(TWO), r"target: expected intervals issued before"),
        (lambda: AdaptiveConformal(0.9).bound(0), r"times"),
        (lambda: begun().update(torch.zeros(3)), r"target: expected shape \(2,\), got shape \(3,"),
        (lambda: begun().update(TWO + torch.inf), r"target: expected finite values, NaN where"),
        (lambda: begun().predict(SERIES, SERIES), r"lower: expected shape \(2,\)"),
        (lambda: begun().predict(TWO, TWO - 1), r"upper: .* nowhere below"),
        (lambda: begun().predict(TWO, TWO, scale=TWO), r"scale: expected positive values"),
        (lambda: begun(delay=torch.tensor([1, 2, 3])), r"delay: expected a shape that broadcasts"),
        (lambda: begun().run(SERIES, SERIES[:3], SERIES), r"upper: expected shape \(5, 2\)"),
        (lambda: begun().run(*[SERIES[:0]] * 3), r"target: expected shape \(time, ...\) with at"),
        (
            lambda: begun().load_state_dict(AdaptiveConformal(0.9).state_dict() or OTHER),
            r"state: expected a window of 9 and a longest delay of 1, got 9 and 2",
        ),
    ],
)
def test_bad_input_is_refused(call: object, text: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=text):
        call()


OTHER = begun(delay=2).state_dict()
