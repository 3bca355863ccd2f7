"""What each unit does over the rows of a batch, with gradients: its energy and its KL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.chain_kl import chain_unit_kl
from pyro_vdn.nn.divergence import closed_form_kl
from pyro_vdn.nn.normals import UnitNormal, unexpanded

_REMEMBERED = "vdn_unit_measures"


def unit_energy(posterior: dist.Distribution) -> Tensor:
    r"""Return each unit's energy `mu2_i = E[mu_i^2]` over the rows of a batch.

    The posterior remembers it, so that the KL and penalties share one pass over memory.

    Args:
        posterior: Posterior of a layer, batch shape `(..., num_units)`.

    Returns:
        The mean squares, `(num_units,)`, in single precision at least; latent dimensions are
        averaged.

    Example:
        >>> unit_energy(dist.Normal(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), 1.0))
        tensor([5., 4.])
    """
    energy: Tensor = _remembered(posterior, "energy", lambda: _energy(posterior))
    return energy


def unit_kl(posterior: dist.Distribution, prior: dist.Distribution) -> Tensor | None:
    """Return each unit's mean KL over the rows of a batch; the posterior remembers it.

    Args:
        posterior: Posterior of a layer, batch shape `(..., num_units)`.
        prior: Its prior.

    Returns:
        KLs in nats, `(num_units,)`, or None where there is no closed form.

    Example:
        >>> prior = UnitNormal(torch.zeros(()), torch.ones(()))
        >>> unit_kl(dist.Normal(torch.ones(5, 2), 1.0), prior)
        tensor([0.5000, 0.5000])
    """
    if isinstance(prior, UnitNormal):  # all of these are the same distribution
        kl: Tensor | None = _remembered(posterior, "kl", lambda: _kl(posterior, prior))
        return kl
    return _kl(posterior, prior)


def _remembered(posterior: dist.Distribution, what: str, measure: Callable[[], Any]) -> Any:
    """Return what was measured before under the same gradient mode, or measure it."""
    memory = posterior.__dict__.setdefault(_REMEMBERED, {})
    key = (what, torch.is_grad_enabled())
    if key not in memory:
        memory[key] = measure()
    return memory[key]


def _kl(posterior: dist.Distribution, prior: dist.Distribution) -> Tensor | None:
    units = posterior.batch_shape[-1]
    if isinstance(posterior, dist.Normal) and isinstance(prior, UnitNormal):
        scale = unexpanded(posterior.scale)
        of_scale = over_rows(0.5 * scale.square() - scale.log() - 0.5, units)
        dtype = torch.promote_types(posterior.loc.dtype, scale.dtype)
        return (0.5 * unit_energy(posterior) + of_scale).to(dtype)
    if isinstance(prior, GaussianChain) and isinstance(posterior, (GaussianChain, dist.Normal)):
        return chain_unit_kl(posterior, prior)
    if isinstance(posterior, dist.Normal) and isinstance(prior, dist.Normal):
        of_prior = tuple(unexpanded(value) for value in (prior.loc, prior.scale))
        if all(value.dim() <= 1 for value in of_prior):
            return _kl_to_one_prior(posterior, *of_prior)
    kl = closed_form_kl(posterior, prior)
    return None if kl is None else over_rows(kl, units).to(kl.dtype)


def _kl_to_one_prior(posterior: dist.Normal, loc: Tensor, prior_scale: Tensor) -> Tensor:
    """Return the KL to a prior that is the same for all rows, in one pass over the locations."""
    units = posterior.batch_shape[-1]
    scale = unexpanded(posterior.scale)
    ratio = scale / prior_scale
    of_scale = over_rows(0.5 * ratio.square() - ratio.log() - 0.5, units)
    means = precise(unexpanded(posterior.loc))
    means = means if means.dim() else means.expand(units)
    distance: Tensor = _MeanSquareAbout.apply(  # type: ignore[no-untyped-call]
        means.expand(*means.shape[:-1], units).reshape(-1, units), precise(loc).expand(units)
    )
    dtype = torch.promote_types(posterior.loc.dtype, scale.dtype)
    return (0.5 * distance / precise(prior_scale).square() + of_scale).to(dtype)


def over_rows(values: Tensor, units: int) -> Tensor:
    """Return the mean over all dimensions but the last, expanded to the units.

    Args:
        values: Values that broadcast to `(..., num_units)`.
        units: Number of units.
    """
    width = values.shape[-1] if values.dim() else 1
    rows = precise(values).reshape(-1, width)
    return (rows.sum(0) / max(len(rows), 1)).expand(units)


def precise(values: Tensor) -> Tensor:
    """Return values, `(...)`, in single precision at least: half rounds and overflows in sums.

    Args:
        values: Values of any floating dtype.
    """
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


def _energy(posterior: dist.Distribution) -> Tensor:
    units = posterior.batch_shape[-1]
    if posterior.event_dim:
        return over_rows(precise(posterior.mean).square().mean(-1), units)
    mean = precise(unexpanded(posterior.mean))
    if mean.dim() == 0:
        return mean.square().expand(units)
    energy: Tensor = _MeanSquare.apply(  # type: ignore[no-untyped-call]
        mean.reshape(-1, mean.shape[-1])
    )
    return energy.expand(units)


class _MeanSquareAbout(torch.autograd.Function):
    """Mean of squared distances down the columns, back in one pass over memory."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, centre: Tensor) -> Tensor:
        away = values - centre
        total: Tensor = (away * away).sum(0)
        return total / max(len(values), 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        values, centre = ctx.saved_tensors
        per_value = grad * (2 / max(len(values), 1))
        shift = centre * per_value
        of_centre = len(values) * shift - per_value * values.sum(0)
        return torch.addcmul(-shift, values, per_value), of_centre


class _MeanSquare(torch.autograd.Function):
    """Mean of squares down the columns, back in one pass over memory."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor) -> Tensor:
        total: Tensor = (values * values).sum(0)
        return total / max(len(values), 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        scaled: Tensor = values * (grad * (2 / max(len(values), 1)))
        return scaled
