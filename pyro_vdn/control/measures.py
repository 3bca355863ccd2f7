"""What a unit does over the rows of a batch, with gradients: its energy and its KL."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.nn.divergence import closed_form_kl
from pyro_vdn.nn.normals import UnitNormal, unexpanded


def unit_energy(posterior: dist.Distribution) -> Tensor:
    r"""Return each unit's energy `mu2_i = E[mu_i^2]` over the rows of a batch.

    Args:
        posterior: Posterior of a layer, batch shape `(..., num_units)`.

    Returns:
        The mean squares, `(num_units,)`; latent dimensions are averaged.

    Example:
        >>> unit_energy(dist.Normal(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), 1.0))
        tensor([5., 4.])
    """
    mean = unexpanded(posterior.mean)
    if posterior.event_dim:
        return mean.expand(posterior.mean.shape).square().mean(-1).flatten(0, -2).mean(0)
    rows = mean.reshape(-1, mean.shape[-1])
    energy: Tensor = torch.linalg.vecdot(rows, rows, dim=0) / len(rows)
    return energy


def unit_kl(posterior: dist.Distribution, prior: dist.Distribution) -> Tensor | None:
    """Return each unit's mean KL over the rows of a batch.

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
    units = posterior.batch_shape[-1]
    if isinstance(posterior, dist.Normal) and isinstance(prior, UnitNormal):
        scale = unexpanded(posterior.scale)
        of_scale = _over_rows(0.5 * scale.square() - scale.log() - 0.5, units)
        return 0.5 * unit_energy(posterior) + of_scale
    kl = closed_form_kl(posterior, prior)
    return None if kl is None else _over_rows(kl, units)


def _over_rows(values: Tensor, units: int) -> Tensor:
    width = values.shape[-1] if values.dim() else 1
    return values.reshape(-1, width).mean(0).expand(units)
