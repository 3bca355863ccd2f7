"""Do further scores help to decide?"""

from __future__ import annotations

from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.decision._bootstrap import Estimate
from pyro_vdn.decision._features import Features
from pyro_vdn.decision.combination import Combination
from pyro_vdn.decision.comparison import compare_aurc


def added_value(
    base: Combination,
    extended: Combination,
    features: Features,
    risk: Tensor | ArrayLike,
    *,
    blocks: Tensor | ArrayLike | None = None,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    r"""Return what further scores are worth: the area under the risk-coverage curve that they save.

    .. math:: \text{AURC}(\text{base}) - \text{AURC}(\text{extended})

    on cases that neither was fitted to. Above 0, the further scores help to decide. The interval is
    that of paired blocks (:func:`compare_aurc`); it speaks of these two fits on new cases, not of
    fits to other validation cases.

    Args:
        base: Combination of the scores at hand, such as entropy and maximum probability.
        extended: Combination of these and the further ones.
        features: Held-out scores by name, each `(cases,)`.
        risk: Their risk, `(cases,)`.
        blocks: Labels of blocks that are resampled whole, `(cases,)`.
        resamples: Number of resamples.
        level: Share of the resamples that the interval holds.
        seed: Seed of the resampling.

    Returns:
        The saved area with its interval, in the units of the risk.

    Raises:
        InputError: If a fitted feature is missing, shapes disagree, a value is not finite, or a
            setting makes no sense.

    Example:
        >>> import numpy
        >>> entropy, kl = numpy.random.default_rng(0).gamma(2.0, size=(2, 400))
        >>> table, risk = {"entropy": entropy, "kl": kl}, entropy + kl
        >>> base = Combination.fit(table, risk, names=["entropy"])
        >>> added_value(base, Combination.fit(table, risk), table, risk).lower > 0
        True
    """
    scores = {"base": base.predict(features), "extended": extended.predict(features)}
    found = compare_aurc(
        scores,
        risk,
        reference="extended",
        blocks=blocks,
        resamples=resamples,
        level=level,
        seed=seed,
    )
    return found["base"].difference
