"""Stationary autoregressions: from partial autocorrelations to coefficients, and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vdn.errors import InputError

#: Partial autocorrelations stay this far inside (-1, 1), where variances are finite.
_MARGIN = 1e-5


def levinson(partials: Tensor) -> list[Tensor]:
    r"""Return the coefficients of the best prediction from the last 0, 1, ..., p values.

    The Durbin-Levinson recursion: `a^(k)_k = r_k` and `a^(k)_j = a^(k-1)_j - r_k a^(k-1)_{k-j}`.
    Any partial autocorrelations in (-1, 1) give a stationary autoregression, and any stationary
    autoregression has such (Barndorff-Nielsen and Schou, 1973).

    Args:
        partials: Partial autocorrelations `r`, `(..., order)`.

    Returns:
        For each number of values, coefficients `(..., order)` that end with zeros.

    Example:
        >>> levinson(torch.tensor([0.5, 0.2]))[2]
        tensor([0.4000, 0.2000])
    """
    order = partials.shape[-1]
    rows = [torch.zeros_like(partials)]
    for k in range(1, order + 1):
        before, r = rows[-1][..., : k - 1], partials[..., k - 1 : k]
        row = torch.cat([before - r * before.flip(-1), r], -1)
        rows.append(F.pad(row, (0, order - k)))
    return rows


def unexplained(partials: Tensor) -> Tensor:
    r"""Return the share of variance that the last 0, 1, ..., p values leave unexplained.

    It is `prod_{j <= k} (1 - r_j^2)`, of shape `(..., order + 1)`.

    Args:
        partials: Partial autocorrelations `r`, `(..., order)`.
    """
    remaining = (1 - partials) * (1 + partials)  # near 1 the square would be rounded first
    return torch.cumprod(F.pad(remaining, (1, 0), value=1.0), -1)


def partial_autocorrelations(coefficients: Tensor) -> Tensor:
    """Return the partial autocorrelations of stationary autoregressions, the inverse of `levinson`.

    Args:
        coefficients: Coefficients `a`, `(..., order)`.

    Returns:
        Values in (-1, 1), `(..., order)`.

    Raises:
        InputError: For coefficients that are not stationary.

    Example:
        >>> partial_autocorrelations(torch.tensor([0.4, 0.2]))
        tensor([0.5000, 0.2000])
    """
    partials = []
    row = coefficients
    for _ in range(coefficients.shape[-1]):
        r = row[..., -1:]
        outside = ~(r.abs() < 1).squeeze(-1)
        if bool(outside.any()):
            place = tuple(int(i) for i in outside.nonzero()[0])
            raise InputError(
                "phi",
                expected="coefficients of a stationary autoregression; for order 1 in (-1, 1)",
                got=f"{coefficients[place].tolist()} at {place}",
                hint="phi=0.9 for one lag, phi=torch.tensor([0.6, 0.3]) for two",
            )
        partials.append(r)
        row = (row[..., :-1] + r * row[..., :-1].flip(-1)) / (1 - r.square())
    return torch.cat(partials[::-1], -1)


def partials_from_free(free: Tensor) -> Tensor:
    """Return partial autocorrelations for any numbers: `(1 - 1e-5) tanh(free)`, in double.

    Args:
        free: Unconstrained values, `(...)`.
    """
    return (1 - _MARGIN) * torch.tanh(precise(free))


def free_from_partials(partials: Tensor) -> Tensor:
    """Return the numbers that give partial autocorrelations, `(...)`.

    Args:
        partials: Values within 1e-5 of neither -1 nor 1.

    Raises:
        InputError: For values beyond.
    """
    inside = precise(partials) / (1 - _MARGIN)
    if not bool((inside.abs() < 1).all()):
        raise InputError(
            "phi",
            expected=f"partial autocorrelations of less than {1 - _MARGIN} in size",
            got=f"{float(partials.abs().max())}",
            hint="phi=0.9999",
        )
    return torch.atanh(inside).to(partials.dtype)


def precise(values: Tensor) -> Tensor:
    """Return values, `(...)`, in double precision, where `1 - phi^2` keeps its digits.

    Args:
        values: Hyperparameters.
    """
    return values if values.device.type == "mps" else values.double()


def as_numbers(what: str, values: float | Tensor) -> Tensor:
    """Return an argument as a tensor of its own, of the default dtype.

    Args:
        what: The argument.
        values: Its value.

    Raises:
        InputError: For what is neither a number nor a tensor.
    """
    try:
        return torch.as_tensor(values, dtype=torch.get_default_dtype()).detach().clone()
    except (TypeError, ValueError) as error:
        raise InputError(
            what,
            expected="a number, a tensor or a distribution",
            got=repr(values),
            hint=f"{what}=0.9",
        ) from error


def coefficients_per_unit(phi: float | Tensor, num_units: int, order: int) -> Tensor:
    """Return coefficients `(num_units, order)`.

    Args:
        phi: A number, the first lag's; or a tensor `(order,)`, `(num_units, order)` or, for order
            1, `(num_units,)`.
        num_units: Number of units.
        order: Number of lags.

    Raises:
        InputError: For a tensor of another shape.
    """
    values = as_numbers("phi", phi)
    if values.dim() == 0:
        return F.pad(values.expand(num_units, 1), (0, order - 1))
    if order == 1 and values.shape == (num_units,):
        return values.unsqueeze(-1)
    if values.shape not in ((order,), (num_units, order)):
        raise InputError(
            "phi",
            expected=f"a number, or shape ({order},) or ({num_units}, {order})",
            got=f"shape {tuple(values.shape)}",
            hint="a row of `order` coefficients, the latest lag first",
        )
    return values.expand(num_units, order)
