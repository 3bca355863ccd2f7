"""How long units remember: half-lives, and what a step takes over from the steps before it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.errors import InputError

Array = NDArray[np.float64]

#: A root this little above 1 is one of 1 that has been rounded.
_ROUNDING = 1e-6


def half_life(coefficients: Tensor | ArrayLike, step: float = 1.0) -> Array:
    r"""Return the time after which half of a unit's value has been forgotten.

    `log 2 / -log|phi|` steps, in the unit of `step`; above order 1, `|phi|` is the modulus of the
    dominant root of `x^p = phi_1 x^{p-1} + ... + phi_p`, the rate at which the slowest part of the
    memory fades. (A root with an angle fades while it swings.)

    Args:
        coefficients: `phi`, `(..., order)`, such as `AutoregressiveNormal.coefficients()` of shape
            `(units, order)`; of one dimension, `(units,)`, those of order 1.
        step: Length of a step, positive, in the unit of time that is wanted: 0.25 where steps are
            quarters of an hour and half-lives are hours.

    Returns:
        Half-lives, `(...)`: 0 for units without memory, infinite at `|phi| = 1`.

    Raises:
        InputError: For coefficients of an autoregression that explodes or are not finite, or a step
            that is not positive.

    Example:
        >>> half_life([0.5, -0.5, 0.0], step=24.0)
        array([24., 24.,  0.])
        >>> half_life([[0.6, 0.27]]).round(3)  # roots 0.9 and -0.3
        array([6.579])
    """
    if not (np.isfinite(step) and step > 0):
        raise InputError(
            "step", expected="a positive length of a step", got=repr(step), hint="step=1.0"
        )
    modulus = dominant_root(_by_lag(coefficients))
    with np.errstate(divide="ignore"):
        result: Array = np.log(2.0) / -np.log(np.minimum(modulus, 1.0)) * step
    return np.abs(result)  # no -0


def dominant_root(coefficients: Array) -> Array:
    """Return the modulus of the slowest root of autoregressions.

    Args:
        coefficients: Coefficients, `(..., order)`.

    Returns:
        Moduli, `(...)`, in [0, 1].

    Raises:
        InputError: For an autoregression that explodes.

    Example:
        >>> dominant_root(np.array([[0.0, 0.25]]))
        array([0.5])
    """
    order = coefficients.shape[-1]
    companion = np.zeros((*coefficients.shape[:-1], order, order))
    companion[..., 0, :] = coefficients
    companion[..., 1:, :-1] = np.eye(order - 1)
    modulus: Array = np.abs(np.linalg.eigvals(companion)).max(-1)
    if (modulus > 1 + _ROUNDING).any():
        raise InputError(
            "coefficients",
            expected="those of autoregressions that do not explode; for order 1 in [-1, 1]",
            got=f"a root of modulus {modulus.max():g}",
            hint="(units, order), the latest lag first",
        )
    return modulus


def _by_lag(coefficients: Tensor | ArrayLike) -> Array:
    """Return finite coefficients, `(..., order)`."""
    given = coefficients
    values = given.detach().cpu().double().numpy() if isinstance(given, Tensor) else given
    array = np.asarray(values, dtype=np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim == 0 or array.size == 0 or not np.isfinite(array).all():
        raise InputError(
            "coefficients",
            expected="finite numbers of shape (units, order), or (units,) for order 1",
            got="NaN or infinity" if array.size and array.ndim else f"shape {array.shape}",
            hint="layer.prior.coefficients()",
        )
    return array
