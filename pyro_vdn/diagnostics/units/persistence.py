"""How long units remember: half-lives, and what a step takes over from the steps before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.stationary import partial_autocorrelations, unexplained

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


def carried_share(coefficients: Tensor | ArrayLike) -> Array:
    r"""Return the share of a unit's prior variance that the steps before carry into a step.

    `1 - s^2 / Var(z_t)`, for order 1 `phi^2`; in general `1 - prod_k (1 - r_k^2)` with the partial
    autocorrelations `r`. It does not depend on the innovation scale `s`.

    Args:
        coefficients: As for `half_life`.

    Returns:
        Shares in [0, 1), `(...)`.

    Raises:
        InputError: For coefficients that are not stationary or not finite.

    Example:
        >>> carried_share([0.9, 0.0]).round(4), carried_share([[0.4, 0.2]]).round(4)
        (array([0.81, 0.  ]), array([0.28]))
    """
    partials = partial_autocorrelations(torch.from_numpy(_by_lag(coefficients).copy()))
    result: Array = 1.0 - unexplained(partials)[..., -1].numpy()
    return result


@dataclass(frozen=True, eq=False, kw_only=True)
class UnitPersistence:
    r"""How long the units of a layer with memory remember; arrays have shape `(units,)`.

    Args:
        phi: Coefficients of the prior, `(units, order)`, the latest lag first.
        innovation_scale: The prior's innovation scale `s`.
        half_life: `half_life(phi, step)`, in `unit`.
        prior_carried: Share of the prior's variance that a step takes over from those before it.
        posterior_carried: The same of the posterior over data, see `UnitStatistics.carried`.
        renewal: What is new over a whole sequence, see `UnitStatistics.renewal`.
        step: Length of a step, in `unit`.
        unit: Unit of time.
        steps: Number of steps of the sequences behind it.

    Example:
        >>> given = dict.fromkeys(("innovation_scale", "posterior_carried", "renewal"), np.ones(2))
        >>> time = {"step": 0.5, "unit": "h", "steps": 48}
        >>> units = UnitPersistence.of(np.array([[0.5], [0.9]]), **given, **time)
        >>> units.half_life.round(2), units.prior_carried
        (array([0.5 , 3.29]), array([0.25, 0.81]))
    """

    phi: Array
    innovation_scale: Array
    half_life: Array
    prior_carried: Array
    posterior_carried: Array
    renewal: Array
    step: float
    unit: str
    steps: int

    @classmethod
    def of(
        cls,
        phi: Array,
        *,
        innovation_scale: Array,
        posterior_carried: Array,
        renewal: Array,
        step: float,
        unit: str,
        steps: int,
    ) -> UnitPersistence:
        """Work out what follows from the prior's coefficients."""
        return cls(
            phi=phi,
            innovation_scale=innovation_scale,
            half_life=half_life(phi, step),
            prior_carried=carried_share(phi),
            posterior_carried=posterior_carried,
            renewal=renewal,
            step=step,
            unit=unit,
            steps=steps,
        )

    def to_arrays(self) -> dict[str, Array]:
        """Return one array `(units,)` per column; above order 1 there is a column per lag."""
        order = self.phi.shape[1]
        names = ["phi"] if order == 1 else [f"phi_{lag + 1}" for lag in range(order)]
        lags = dict(zip(names, self.phi.T, strict=True))
        return {
            **lags,
            "innovation_scale": self.innovation_scale,
            "half_life": self.half_life,
            "prior_carried": self.prior_carried,
            "posterior_carried": self.posterior_carried,
            "renewal": self.renewal,
        }

    def to_rows(self) -> list[dict[str, int | float]]:
        """Return one plain dictionary per unit, for a table, a CSV file or JSON."""
        columns = {name: values.tolist() for name, values in self.to_arrays().items()}
        return [
            {"unit": unit, **{name: column[unit] for name, column in columns.items()}}
            for unit in range(len(self.half_life))
        ]


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
