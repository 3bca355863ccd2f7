"""Local reconstruction: each unit a small variational autoencoder with its own ELBO."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.nn.shapes import LayerShape, inverse_softplus
from pyro_vdn.nn.sites import LOCAL


class LocalDecoder(nn.Module):
    r"""One one-dimensional decoder per unit, observing a detached projection of the layer's input.

    Unit i reconstructs `t_i = p_i h` from its own sample, `t_i ~ Normal(a_i z_i + c_i, s_i^2)`, so
    that its local ELBO is `E[log p(t_i | z_i)] - KL_i`. The target is detached: a gradient through
    it would shrink the input to make it easy to predict. The projection is random and fixed, since
    a projection that is only ever detached cannot learn.

    Args:
        shape: Sizes of the layer it belongs to.
        min_scale: Floor under the decoder's scale.

    Example:
        >>> decoder = LocalDecoder(LayerShape(3, 4, 1))
        >>> h, z = torch.ones(5, 3), torch.zeros(5, 4)
        >>> trace = pyro.poutine.trace(decoder).get_trace("local", h, z)
        >>> trace.nodes["local"]["value"].shape
        torch.Size([5, 4])

    Source:
        Ruffenach, *Learning Distributions Inside a Language Model*, doi:10.5281/zenodo.21632472
        (2026).
    """

    projection: Tensor

    def __init__(self, shape: LayerShape, *, min_scale: float = 1e-2) -> None:
        super().__init__()
        self.min_scale = min_scale
        projection = torch.randn(shape.num_units, shape.in_features) / shape.in_features**0.5
        self.register_buffer("projection", projection)
        self.weight = nn.Parameter(torch.full(shape.latent, 0.1))
        self.bias = nn.Parameter(torch.zeros(shape.num_units))
        raw = inverse_softplus(1.0 - min_scale)
        self.raw_scale = nn.Parameter(torch.full((shape.num_units,), raw))

    def forward(self, site: str, h: Tensor, z: Tensor) -> None:
        """Observe the projection of the layer's input, given its sample.

        Args:
            site: Name of the observed site.
            h: The layer's input, `(..., in_features)`.
            z: The layer's sample, `(..., num_units[, latent_dim])`.
        """
        target = F.linear(h, self.projection.to(h.dtype)).detach()
        evidence = self.weight * z
        if self.weight.dim() > 1:
            evidence = evidence.sum(-1)  # (..., units, k) -> (..., units)
        scale = self.min_scale + F.softplus(self.raw_scale)
        loc = evidence + self.bias
        pyro.sample(
            site, dist.Normal(loc, scale), obs=target.expand(loc.shape), infer={LOCAL: True}
        )
