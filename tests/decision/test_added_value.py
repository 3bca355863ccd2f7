from __future__ import annotations

import numpy as np
import pytest

from pyro_vdn.decision import Combination, added_value, aurc, compare_aurc


def study(weight: float, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Make tokens whose risk rests on entropy and, by `weight`, on what a hidden signal says."""
    generator = np.random.default_rng(seed)
    entropy, kl = generator.gamma(2.0, size=(2, 60, 25))
    risk = generator.gamma(2.0, 0.5, size=entropy.shape) * (entropy + weight * kl)
    blocks = np.repeat(np.arange(60), 25)
    return {"entropy": entropy.ravel(), "kl": kl.ravel()}, risk.ravel(), blocks


@pytest.mark.parametrize("errors", [False, True])
def test_a_signal_that_knows_more_is_worth_something(errors: bool) -> None:
    features, risk, _ = study(1.0, seed=0)
    held_out, held_risk, blocks = study(1.0, seed=1)
    if errors:
        risk, held_risk = (risk > 3) * 1.0, (held_risk > 3) * 1.0
    base = Combination.fit(features, risk, names=["entropy"])
    extended = Combination.fit(features, risk)
    value = added_value(base, extended, held_out, held_risk, blocks=blocks)
    areas = [aurc(c.predict(held_out), held_risk) for c in (base, extended)]
    assert value.value == pytest.approx(areas[0] - areas[1])
    assert value.lower > 0
    turned = added_value(extended, base, held_out, held_risk, blocks=blocks)
    assert turned.value == pytest.approx(-value.value)
    assert turned.upper < 0
    paired = compare_aurc(
        {"e": extended.predict(held_out), "b": base.predict(held_out)},
        held_risk,
        blocks=blocks,
        resamples=50,
        level=0.5,
        seed=3,
    )
    settings = {"blocks": blocks, "resamples": 50, "level": 0.5, "seed": 3}
    assert added_value(base, extended, held_out, held_risk, **settings) == paired["b"].difference


def test_a_signal_that_knows_nothing_is_worth_nothing() -> None:
    found = []
    for seed in range(20):
        features, risk, _ = study(0.0, seed=2 * seed)
        held_out, held_risk, blocks = study(0.0, seed=2 * seed + 1)
        base = Combination.fit(features, risk, names=["entropy"])
        extended = Combination.fit(features, risk)
        found.append(
            added_value(base, extended, held_out, held_risk, blocks=blocks, resamples=50).lower > 0
        )
    assert sum(found) <= 3  # one in forty each, by chance
