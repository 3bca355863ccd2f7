"""The mixture of several predictions: an ensemble, or fits of different models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.prediction import ClosedForm, Prediction


def pooled(predictions: Sequence[Prediction], weights: Sequence[float] | None = None) -> Prediction:
    r"""Return the mixture of predictive distributions of the same rows: `p = sum_m w_m p_m`.

    Densities are averaged, joint ones over whole rows: `log sum_m w_m exp(log p_m)`. Draws are
    joined, of every member a share `w_m`: as many of its first draws as make the shares right, so
    that a member of weight 0 leaves none, and of members with unequal numbers of draws the shortest
    sets the number. Each draw stays whole, whatever hangs together in it.

    The closed form is that of the mixture, with its moments
    `mean = sum_m w_m mean_m` and `variance = sum_m w_m (variance_m + mean_m^2) - mean^2`, where all
    members have one; else it is None.

    Args:
        predictions: Predictions of the same rows, at least one.
        weights: Weights `w_m >= 0`, in any unit, such as those of `stacking_weights`; equal by
            default, as for the members of an ensemble.

    Returns:
        The mixture. Densities that a member does not know are None.

    Raises:
        InputError: For no prediction, predictions of other rows, weights that are negative, not
            finite or all 0, another number of them, or too few draws for the shares.

    Example:
        >>> members = [Prediction(torch.zeros(10, 2, 1)), Prediction(torch.ones(10, 2, 1))]
        >>> pooled(members).draws.shape, pooled(members).mean[0]
        (torch.Size([20, 2, 1]), tensor([0.5000]))
        >>> pooled(members, [3.0, 1.0]).mean[0]
        tensor([0.2308])

    Source:
        Lakshminarayanan, Pritzel, Blundell, *Simple and Scalable Predictive Uncertainty Estimation
        using Deep Ensembles*, NeurIPS 2017.
    """
    shares = _shares(predictions, weights)
    _check_rows(predictions)
    forms = [prediction.closed_form for prediction in predictions]
    known = [form for form in forms if form is not None]
    return Prediction(
        _joined_draws([prediction.draws for prediction in predictions], shares),
        _averaged([prediction.log_prob_per_output for prediction in predictions], shares),
        _averaged([prediction.log_prob_joint for prediction in predictions], shares),
        _pooled_forms(known, shares) if len(known) == len(forms) else None,
    )


def _pooled_forms(forms: Sequence[ClosedForm], shares: Sequence[float]) -> ClosedForm:
    mean = sum(share * form.mean for share, form in zip(shares, forms, strict=True))
    assert isinstance(mean, Tensor)
    # About the common mean, so that no large squares are subtracted.
    variance = sum(
        share * (form.variance + (form.mean - mean).square())
        for share, form in zip(shares, forms, strict=True)
    )
    assert isinstance(variance, Tensor)
    return ClosedForm(
        mean,
        variance,
        _joined_draws([form.draws for form in forms], shares),
        _averaged([form.log_prob_per_output for form in forms], shares),
        _averaged([form.log_prob_joint for form in forms], shares),
    )


def _averaged(log_probs: Sequence[Tensor | None], shares: Sequence[float]) -> Tensor | None:
    """Return the log of the average density, NaN where a member's is."""
    known = [
        log_prob + (math.log(share) if share else -math.inf)
        for log_prob, share in zip(log_probs, shares, strict=True)
        if log_prob is not None
    ]
    return torch.stack(known).logsumexp(0) if len(known) == len(log_probs) else None


def _joined_draws(draws: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the first draws of all members, of each a share of the whole."""
    counts = [len(own) for own in draws]
    if not any(counts):
        return torch.cat(list(draws))
    # Without the small number, 0.1 x 10 / 0.1 would be a draw less than 10.
    total = math.floor(
        1e-9 + min(n / share for n, share in zip(counts, shares, strict=True) if share)
    )
    taken = [min(n, round(total * share)) for n, share in zip(counts, shares, strict=True)]
    if not any(taken):
        raise InputError(
            "predictions",
            expected="enough draws that every member can give its share",
            got=f"{counts} draws for weights {[round(share, 3) for share in shares]}",
            hint="more draws of the members of large weight",
        )
    return torch.cat([own[:count] for own, count in zip(draws, taken, strict=True)])


def _shares(predictions: Sequence[Prediction], weights: Sequence[float] | None) -> list[float]:
    if len(predictions) == 0:
        raise InputError(
            "predictions",
            expected="at least one",
            got="none",
            hint="[predict(model, guide, x, y=y) for model, guide in members]",
        )
    given = [1.0] * len(predictions) if weights is None else [float(weight) for weight in weights]
    total = sum(given)
    fits = len(given) == len(predictions) and 0.0 < total < math.inf and min(given) >= 0.0
    if not fits:
        raise InputError(
            "weights",
            expected=f"{len(predictions)} numbers of at least 0 that are not all 0",
            got=str(given),
            hint="leave them out for equal weights",
        )
    return [weight / total for weight in given]


def _check_rows(predictions: Sequence[Prediction]) -> None:
    """Refuse members that predict something else than the first."""
    expected = predictions[0].draws.shape[1:]
    for prediction in predictions:
        if prediction.draws.shape[1:] != expected:
            raise InputError(
                "predictions",
                expected=f"draws of one shape (draws, {', '.join(map(str, expected))})",
                got=f"shape {tuple(prediction.draws.shape)}",
                hint="predict the same rows and outputs with every member",
            )
