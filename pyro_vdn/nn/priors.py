"""Priors of neurons: each a module with one method that returns a distribution.

The contract: `forward(h)` takes the layer's input `h` of shape ``(..., in_features)`` and returns a
distribution that expands to batch shape ``(..., num_units)`` and, for ``latent_dim > 1``, event
shape ``(latent_dim,)``. A prior written by a user needs nothing else; ``bind`` is for parts that
make their parameters once they know the layer.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.nn.normals import UnitNormal
from pyro_vdn.nn.scales import raw_scale
from pyro_vdn.nn.shapes import LayerShape, check_positive, inverse_softplus


class StandardNormal(nn.Module):
    r"""The prior `p(z_i) = Normal(0, 1)` for every unit.

    Example:
        >>> StandardNormal()(torch.zeros(5, 3)).batch_shape
        torch.Size([])
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, h: Tensor) -> dist.Distribution:
        """Return the scalar standard normal, with dtype and device of `h`, `(..., in_features)`."""
        return UnitNormal(h.new_zeros(()), h.new_ones(()), validate_args=False)


class LearnedNormal(nn.Module):
    r"""The prior `p(z_i) = Normal(m_i, s_i^2)` with a learned location and scale per unit.

    Args:
        initial_scale: Scale at the start, positive.
        min_scale: Floor under the scale.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> layer = VariationalNeurons(3, 4, prior=LearnedNormal())
        >>> layer.prior(torch.zeros(5, 3)).batch_shape
        torch.Size([4])
    """

    loc: nn.Parameter
    raw_scale: nn.Parameter

    def __init__(self, *, initial_scale: float = 1.0, min_scale: float = 1e-3) -> None:
        super().__init__()
        self.initial_scale = initial_scale
        self.min_scale = min_scale

    def bind(self, shape: LayerShape) -> None:
        """Make the parameters for a layer of the given shape."""
        raw = inverse_softplus(self.initial_scale - self.min_scale)
        self.loc = nn.Parameter(torch.zeros(shape.latent))
        self.raw_scale = nn.Parameter(torch.full(shape.latent, raw))

    @torch.no_grad()
    def assign_(self, loc: Tensor, scale: Tensor) -> None:
        """Set location and scale of every unit, the scale down to just above its floor.

        Args:
            loc: Locations, `(num_units,)`, times `latent_dim` above one latent dimension.
            scale: Scales, of the same shape.
        """
        self.loc.copy_(loc.reshape(self.loc.shape))
        self.raw_scale.copy_(raw_scale(scale, self.min_scale).reshape(self.loc.shape))

    def forward(self, h: Tensor) -> dist.Distribution:
        """Return the prior of all units, batch shape `(num_units,)`.

        The input `h` of shape `(..., in_features)` is unused.
        """
        scale = self.min_scale + F.softplus(self.raw_scale)
        normal = dist.Normal(self.loc, scale, validate_args=False)
        return normal.to_event(self.loc.dim() - 1)


class ConditionalNormal(nn.Module):
    r"""A ladder's prior `p(z_i | h) = Normal(a_i h + c_i, s_i(h)^2)`, given the layer below.

    Location and scale are linear in the layer's input `h`, so that with `h` made of the
    sample below the prior is the top-down part of a ladder VAE (Sonderby et al., NeurIPS 2016). It
    starts as `Normal(0, initial_scale^2)`.

    Args:
        initial_scale: Scale at the start, positive.
        min_scale: Floor under the scale.
        rank: Rank of the linear maps, which then share `V h`: (in + 2 units) x rank + 2 units
            parameters. None for full maps, 2 (in + 1) x units parameters.

    Raises:
        InputError: For a rank that is not positive.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> layer = VariationalNeurons(3, 4, prior=ConditionalNormal())
        >>> layer.prior(torch.zeros(5, 3)).batch_shape
        torch.Size([5, 4])
    """

    def __init__(
        self, *, initial_scale: float = 1.0, min_scale: float = 1e-3, rank: int | None = None
    ) -> None:
        super().__init__()
        if rank is not None:
            check_positive(rank=rank)
        self.initial_scale = initial_scale
        self.min_scale = min_scale
        self.rank = rank

    def bind(self, shape: LayerShape) -> None:
        """Make the parameters for a layer of the given shape."""
        self.latent_shape = shape.latent
        num_latents = math.prod(shape.latent)
        self.read = (
            nn.Identity() if self.rank is None else nn.Linear(shape.in_features, self.rank, False)
        )
        size = self.rank or shape.in_features
        self.loc = nn.Linear(size, num_latents)
        self.raw_scale = nn.Linear(size, num_latents)
        nn.init.normal_(self.loc.weight, std=1e-2)
        nn.init.zeros_(self.loc.bias)
        nn.init.zeros_(self.raw_scale.weight)
        nn.init.constant_(
            self.raw_scale.bias, inverse_softplus(self.initial_scale - self.min_scale)
        )

    def forward(self, h: Tensor) -> dist.Distribution:
        """Return the prior, batch shape `(..., num_units)`, given `h` of `(..., in_features)`."""
        shape = h.shape[:-1] + self.latent_shape
        features = self.read(h)
        loc = self.loc(features).reshape(shape)
        scale = self.min_scale + F.softplus(self.raw_scale(features)).reshape(shape)
        return dist.Normal(loc, scale, validate_args=False).to_event(len(self.latent_shape) - 1)
