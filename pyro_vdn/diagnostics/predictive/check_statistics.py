"""Statistics of data that a predictive check compares with those of replicated data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from pyro_vdn.errors import InputError

Statistic = Callable[[Tensor], Tensor]
"""From values `(..., n)`, NaN where one is missing, to one number per leading place, `(...)`."""


@dataclass(frozen=True)
class OfSeries:
    """A statistic of the order of values, taken of each series by itself and then averaged.

    Other statistics are taken of all values together.

    Args:
        statistic: From series `(..., time)` to `(...)`.

    Example:
        >>> weekly = OfSeries(partial(autocorrelation, lag=7))
        >>> weekly(torch.arange(21.0) % 7)
        tensor(1.)
    """

    statistic: Statistic

    def __call__(self, series: Tensor) -> Tensor:
        """Return the statistic of each series, `(..., time)` to `(...)`."""
        return self.statistic(series)


def mean(values: Tensor) -> Tensor:
    """Return the mean of the values that are there, `(..., n)` to `(...)`; NaN of none.

    Example:
        >>> mean(torch.tensor([1.0, 3.0, torch.nan]))
        tensor(2.)
    """
    return values.nanmean(-1)


def sd(values: Tensor) -> Tensor:
    r"""Return the standard deviation :math:`\sqrt{\sum_t (y_t - \bar y)^2 / (n - 1)}`.

    Args:
        values: `(..., n)`, NaN where missing.

    Returns:
        In the units of the values, `(...)`; NaN of fewer than two.

    Example:
        >>> sd(torch.tensor([1.0, 3.0, torch.nan]))
        tensor(1.4142)
    """
    spare = (_count(values) - 1).clamp(min=0)  # 0 / 0 of too few is NaN
    return (_centred(values).square().nansum(-1) / spare).sqrt()


def skewness(values: Tensor) -> Tensor:
    r"""Return the skewness :math:`m_3 / m_2^{3 / 2}` of central moments :math:`m_k`.

    Args:
        values: `(..., n)`, NaN where missing.

    Returns:
        0 of what is symmetric, above 0 with a long tail to the right, `(...)`; NaN of constants.

    Example:
        >>> skewness(torch.tensor([0.0, 0.0, 0.0, 1.0]))
        tensor(1.1547)

    Source: Joanes and Gill, *Comparing Measures of Sample Skewness and Kurtosis*, 1998 (`g_1`).
    """
    centred = _centred(values)
    return centred.pow(3).nanmean(-1) / centred.square().nanmean(-1).pow(1.5)


def kurtosis(values: Tensor) -> Tensor:
    r"""Return the excess kurtosis :math:`m_4 / m_2^2 - 3` of central moments :math:`m_k`.

    Args:
        values: `(..., n)`, NaN where missing.

    Returns:
        0 of a normal distribution, above 0 with heavier tails, `(...)`; NaN of constants.

    Example:
        >>> kurtosis(torch.tensor([-1.0, 1.0])), kurtosis(torch.tensor([-3.0] + 16 * [0.0] + [3.0]))
        (tensor(-2.), tensor(6.))

    Source: Joanes and Gill 1998 (`g_2`).
    """
    centred = _centred(values)
    return centred.pow(4).nanmean(-1) / centred.square().nanmean(-1).square() - 3.0


def least(values: Tensor) -> Tensor:
    """Return the smallest value that is there, `(..., n)` to `(...)`; NaN of none.

    Example:
        >>> least(torch.tensor([2.0, torch.nan, 1.0]))
        tensor(1.)
    """
    return -largest(-values)


def largest(values: Tensor) -> Tensor:
    """Return the largest value that is there, `(..., n)` to `(...)`; NaN of none.

    Example:
        >>> largest(torch.tensor([2.0, torch.nan, 1.0]))
        tensor(2.)
    """
    found = values.nan_to_num(nan=-torch.inf).amax(-1)
    return found.masked_fill(_count(values) == 0, torch.nan)


def quantile(values: Tensor, level: float) -> Tensor:
    r"""Return a quantile: order statistic :math:`1 + (n - 1) \tau`, linearly interpolated.

    Args:
        values: `(..., n)`, NaN where missing.
        level: Share :math:`\tau` in [0, 1].

    Returns:
        In the units of the values, `(...)`; NaN of no value.

    Raises:
        InputError: If the level lies outside [0, 1].

    Example:
        >>> quantile(torch.tensor([4.0, torch.nan, 1.0, 2.0]), 0.25)
        tensor(1.5000)
        >>> tail = {"q99": partial(quantile, level=0.99)}  # for `predictive_check`

    Source: Hyndman and Fan 1996, type 7: the statistic of a sample, not an estimate of coverage.
    """
    if not 0.0 <= level <= 1.0:
        raise InputError(
            "level", expected="a share in [0, 1]", got=repr(level), hint="write 99 % as 0.99"
        )
    # NumPy sorts many times faster than torch does, and puts NaN last as well.
    by_rank = np.sort(values.detach().cpu().numpy(), axis=-1)
    ordered = torch.from_numpy(by_rank).to(values.device)
    place = (_count(values) - 1).clamp(min=0) * level
    low, high = place.floor(), place.ceil()
    at_low, at_high = (ordered.gather(-1, at.long().unsqueeze(-1)) for at in (low, high))
    return torch.lerp(at_low, at_high, (place - low).unsqueeze(-1)).squeeze(-1)


def zero_share(values: Tensor) -> Tensor:
    """Return the share of values that are zero, `(..., n)` to `(...)`; NaN of no value.

    Example:
        >>> zero_share(torch.tensor([0.0, 0.0, 3.0, 1.0]))
        tensor(0.5000)
    """
    return (values == 0).sum(-1) / _count(values)


def autocorrelation(series: Tensor, lag: int = 1) -> Tensor:
    r"""Return the correlation of a series with itself, `lag` steps apart.

    .. math:: \hat\rho_l = \frac{\frac{1}{n_l} \sum_t (y_t - \bar y)(y_{t + l} - \bar y)}
        {\frac{1}{n} \sum_t (y_t - \bar y)^2}

    over the :math:`n_l` pairs and :math:`n` values that are there.

    Args:
        series: `(..., time)`, NaN where missing.
        lag: Steps :math:`l`, at least 1 and less than the length.

    Returns:
        About 0 without memory; NaN of a constant series, `(...)`.

    Raises:
        InputError: If the lag is below 1 or not below the length.

    Example:
        >>> autocorrelation(torch.tensor([1.0, -1.0, 1.0, -1.0]))
        tensor(-1.)

    Source: Parzen, *On Spectral Analysis with Missing Observations and Amplitude Modulation*, 1963.
    """
    if not 1 <= lag < series.shape[-1]:
        raise InputError(
            "lag",
            expected=f"from 1 to {series.shape[-1] - 1}, below the length of the series",
            got=str(lag),
            hint="time is the last dimension",
        )
    centred = _centred(series)
    pairs = centred[..., :-lag] * centred[..., lag:]
    return pairs.nanmean(-1) / centred.square().nanmean(-1)


def roughness(series: Tensor) -> Tensor:
    r"""Return the mean squared second difference of a series.

    .. math:: \frac{1}{n - 2} \sum_t (y_{t + 1} - 2 y_t + y_{t - 1})^2

    Large of a series that jitters, 0 of a straight line: the sum form of :math:`\int f''(t)^2 dt`.

    Args:
        series: `(..., time)`, at least three steps, NaN where missing.

    Returns:
        In squared units of the values, `(...)`; NaN where no three neighbours are there.

    Raises:
        InputError: If there are fewer than three steps.

    Example:
        >>> roughness(torch.tensor([0.0, 1.0, 0.0, 1.0])), roughness(torch.arange(4.0))
        (tensor(4.), tensor(0.))

    Source: Whittaker, *On a New Method of Graduation*, 1923 (there of third differences); Green and
    Silverman, *Nonparametric Regression and Generalized Linear Models*, 1994.
    """
    if series.shape[-1] < 3:
        raise InputError(
            "series",
            expected="at least three steps",
            got=str(series.shape[-1]),
            hint="time is the last dimension",
        )
    return series.diff(n=2, dim=-1).square().nanmean(-1)


CHECK_STATISTICS: Mapping[str, Statistic | OfSeries] = MappingProxyType(
    {
        "mean": mean,
        "sd": sd,
        "skewness": skewness,
        "kurtosis": kurtosis,
        "min": least,
        "q05": partial(quantile, level=0.05),
        "median": partial(quantile, level=0.5),
        "q95": partial(quantile, level=0.95),
        "max": largest,
        "zero_share": zero_share,
        "autocorrelation": OfSeries(autocorrelation),
        "roughness": OfSeries(roughness),
    }
)
"""Ready statistics by name."""


def _count(values: Tensor) -> Tensor:
    """Return how many values are there, in their dtype, `(..., n)` to `(...)`."""
    return (~values.isnan()).sum(-1).to(values.dtype)


def _centred(values: Tensor) -> Tensor:
    return values - values.nanmean(-1, keepdim=True)
