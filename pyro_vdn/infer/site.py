"""A sample site of a single pass, with its terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.indep_messenger import CondIndepStackFrame
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.divergence import neuron_kl, sum_over
from pyro_vdn.nn.normals import unexpanded
from pyro_vdn.nn.sites import LOCAL, PARTICLES, PENALTY, POSTERIOR
from pyro_vdn.nn.unit_measures import unit_kl


@dataclass(frozen=True)
class Site:
    """A sample site of a single pass.

    Args:
        name: Name of the site.
        value: Its value, `batch_shape + event_shape`.
        fn: The distribution it was drawn from, or is observed under.
        prior: The prior of a neuron, else None.
        scale: Factor on its log density, a number or a tensor that broadcasts to the batch shape.
        mask: Mask on its log density, likewise, or None.
        infer: Its offers.
        plates: The plates it stands in.

    Example:
        >>> normal = dist.Normal(torch.zeros(5, 4), 1.0)
        >>> site = Site("y", torch.zeros(5, 4), normal, None, 1.0, None, {}, ())
        >>> site.log_prob().shape, site.is_local
        (torch.Size([5, 4]), False)
    """

    name: str
    value: Tensor
    fn: dist.Distribution
    prior: dist.Distribution | None
    scale: Tensor | float
    mask: Tensor | bool | None
    infer: dict[str, Any]
    plates: tuple[CondIndepStackFrame, ...]

    @property
    def is_local(self) -> bool:
        """Whether this is a local reconstruction site."""
        return LOCAL in self.infer

    @property
    def is_penalty(self) -> bool:
        """Whether this is the factor of a penalty."""
        return PENALTY in self.infer

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape, particles included."""
        return torch.Size(self.fn.batch_shape)

    @property
    def is_fixed(self) -> bool:
        """Whether this is a deterministic statement or a local reconstruction: nothing random."""
        return self.is_local or self.is_penalty or bool(self.infer.get("_deterministic"))

    @property
    def is_weighted_out(self) -> bool:
        """Whether a weight of zero makes its log density irrelevant."""
        return self.mask is False or (not isinstance(self.scale, Tensor) and self.scale == 0)

    def log_prob(self) -> Tensor:
        """Log density with scale and mask, of the batch shape."""
        return self.weighted(self.fn.log_prob(self.value))

    def penalty(self) -> Tensor:
        """Penalty with scale and mask; broadcasts to the batch shape."""
        return self.weighted(-unexpanded(self.fn.log_factor))

    def kl(self) -> Tensor:
        """KL of a neuron with scale and mask; broadcasts to the batch shape."""
        return self.weighted(self.unweighted_kl())

    def kl_sum(self) -> Tensor:
        """KL of a neuron with scale and mask, summed over the batch, particles included."""
        per_unit = None
        if self.mask is None and (not isinstance(self.scale, Tensor) or self.scale.dim() <= 1):
            per_unit = unit_kl(self.infer[POSTERIOR](), self.prior)
        if per_unit is None:
            return sum_over(self.kl(), self.batch_shape)
        rows = math.prod(self.batch_shape[:-1])
        return rows * (self.scale * per_unit).sum()

    def unweighted_kl(self) -> Tensor:
        """KL of a neuron; broadcasts to the batch shape.

        The offered posterior and the displaced prior have not been copied for every particle.
        """
        return neuron_kl(self.infer[POSTERIOR](), self.prior, self.value)

    def weighted(self, values: Tensor) -> Tensor:
        """Apply scale and mask."""
        weighted: Tensor = scale_and_mask(values, self.scale, self.mask)
        return weighted

    def natural(self, values: Tensor) -> Tensor:
        """Apply the mask and the scale of subsampling plates, but no weight."""
        scale = math.prod(frame.full_size / frame.size for frame in self.plates if frame.size > 0)
        natural: Tensor = scale_and_mask(values, scale, self.mask)
        return natural


def check_plates(site: Site) -> None:
    """Refuse rows that no plate declares, as Pyro's losses do: particles would go astray.

    Dimensions to the right of a declared one, such as the outputs of a row, need no plate.
    """
    own = {frame.dim for frame in site.plates if frame.name != PARTICLES and frame.vectorized}
    particles = {frame.dim for frame in site.plates if frame.name == PARTICLES}
    for dim in range(-len(site.batch_shape), min(own, default=0)):
        if site.batch_shape[dim] > 1 and dim not in particles:
            raise InputError(
                f"site '{site.name}'",
                expected="every batch dimension in a plate",
                got=f"dimension {dim} of size {site.batch_shape[dim]} in none",
                hint=f'`with pyro.plate("data", {site.batch_shape[dim]}, dim={dim}):` around it, '
                "or `.to_event(1)`",
            )
