"""Amortized posteriors of neurons: each a module with one method that returns a distribution."""

from __future__ import annotations

import math
from typing import Literal, get_args

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn.normals import GainNormal, ShiftedNormal
from pyro_vdn.nn.scales import raw_scale
from pyro_vdn.nn.shapes import (
    LayerShape,
    check_choice,
    check_not_negative,
    check_positive,
    inverse_softplus,
)

ScaleMode = Literal["shared", "unit", "relative", "input", "low_rank"]
LocMode = Literal["linear", "identity"]


class NormalPosterior(nn.Module):
    r"""The posterior `q(z_i | h) = Normal(mu_i(h), sigma_i(h)^2)` of every unit.

    The location is linear, `mu = W h + b`, the input itself, or any network of it, such as the
    activation `act(W h)` of a feed-forward layer. The scale is `min_scale + softplus(raw)` with

    | `scale` | `raw` | parameters |
    | --- | --- | --- |
    | ``"shared"`` | one number | 1 |
    | ``"unit"`` | one number per unit | units |
    | ``"relative"`` | the scale is `min_scale + softplus(raw) |mu|`, one `raw` per unit | units |
    | ``"input"`` | `W_s h + b_s` | (in + 1) x units |
    | ``"low_rank"`` | `U tanh(V h) + b_s` of rank r | (in + units) x r + units |

    Args:
        scale: What the scale depends on.
        rank: Rank r of the ``"low_rank"`` scale; by default the largest for which the scale head
            has at most 5 % of the parameters of the location head, and at least 1.
        initial_scale: Scale of every unit at the start, positive; as a share of the location for
            ``"relative"``.
        min_scale: Floor under the scale.
        loc: ``"linear"`` for `W h + b`, ``"identity"`` for `h` itself (then ``in_features ==
            num_units``), or a module from `(..., in_features)` to `(..., num_units)`, times
            `latent_dim` above one latent dimension.

    Raises:
        InputError: For an unknown mode, a scale at or below its floor, an identity between unequal
            sizes, or a network whose output is not of the units.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> posterior = NormalPosterior(scale="input", initial_scale=0.1)
        >>> layer = VariationalNeurons(3, 4, posterior=posterior)
        >>> layer.posterior(torch.zeros(5, 3)).scale.mean().item()  # doctest: +ELLIPSIS
        0.1...

    Source:
        Ruffenach, *Variational Distributional Neuron*, arXiv:2602.18250 (2026).
    """

    def __init__(
        self,
        scale: ScaleMode = "unit",
        *,
        rank: int | None = None,
        initial_scale: float = 0.3,
        min_scale: float = 1e-3,
        loc: LocMode | nn.Module = "linear",
    ) -> None:
        super().__init__()
        check_choice("scale", scale, get_args(ScaleMode))
        if not isinstance(loc, nn.Module):
            check_choice("loc", loc, get_args(LocMode))
        if rank is not None:
            check_positive(rank=rank)
        check_not_negative(min_scale=min_scale)
        self.scale_mode = scale
        self.loc_mode = "network" if isinstance(loc, nn.Module) else loc
        if isinstance(loc, nn.Module):
            self.loc = loc
        self.rank = rank
        self.initial_scale = initial_scale
        self.min_scale = min_scale

    def bind(self, shape: LayerShape) -> None:
        """Make the parameters for a layer of the given shape."""
        num_latents = math.prod(shape.latent)
        if self.loc_mode == "identity" and shape.in_features != num_latents:
            raise InputError(
                "loc",
                expected=f"an input of {num_latents} features for loc='identity'",
                got=f"{shape.in_features} features",
                hint="loc='linear'",
            )
        self.latent_shape = shape.latent
        if self.loc_mode != "network":
            linear = self.loc_mode == "linear"
            self.loc = nn.Linear(shape.in_features, num_latents) if linear else nn.Identity()
        self.raw_scale = self._make_scale(shape.in_features, num_latents)

    def _make_scale(self, in_features: int, num_latents: int) -> nn.Module:
        raw = inverse_softplus(self.initial_scale - self.min_scale)
        if self.scale_mode == "shared":
            return _Constant(torch.tensor(raw))
        if self.scale_mode in ("unit", "relative"):
            return _Constant(torch.full(self.latent_shape, raw))
        if self.scale_mode == "input":
            last = nn.Linear(in_features, num_latents)
            head: nn.Module = last
        else:
            rank = self.rank or max(
                1, int(0.05 * in_features * num_latents) // (in_features + num_latents)
            )
            last = nn.Linear(rank, num_latents)
            head = nn.Sequential(nn.Linear(in_features, rank), nn.Tanh(), last)
        nn.init.normal_(last.weight, std=1e-3)
        nn.init.constant_(last.bias, raw)
        return head

    @torch.no_grad()
    def multiply_loc_(self, gain: Tensor) -> None:
        """Multiply each unit's location by its gain, in place.

        Args:
            gain: Factors, `(num_units,)`.

        Raises:
            InputError: For a location that is not linear: it has no rows to multiply.
        """
        if not isinstance(self.loc, nn.Linear):
            raise InputError(
                "loc",
                expected="a location that is linear in its parameters",
                got=f"a {type(self.loc).__name__}",
                hint="loc='linear'",
            )
        if self.scale_mode == "relative":  # scales that follow the location, but shall not
            self.multiply_scale_(gain.reciprocal(), gain)
        rows = gain.repeat_interleave(self.loc.out_features // len(gain))
        self.loc.weight.mul_(rows.unsqueeze(-1))
        self.loc.bias.mul_(rows)

    def scale_of_units(self) -> Tensor | None:
        """Return each unit's scale, or None where it depends on the input.

        It is `(num_units,)`, or `(num_units, latent_dim)` above one latent dimension.
        """
        if not isinstance(self.raw_scale, _Constant) or self.scale_mode == "relative":
            return None
        scale = self.min_scale + F.softplus(self.raw_scale.value)
        return scale.detach().expand(self.latent_shape)

    @torch.no_grad()
    def multiply_scale_(self, gain: Tensor, mean: Tensor) -> None:
        """Multiply each unit's scale by its gain, in place and down to the floor.

        Exact for ``"unit"`` and, above the floor, ``"relative"``; and for ``"shared"`` where all
        gains are equal (else their mean is taken). A scale that depends on the input by a map of
        its own is shifted before its softplus, by what is exact where it has its mean.

        Args:
            gain: Factors, `(num_units,)`; or one per latent, `(num_units, latent_dim)`, where the
                scale does not depend on the input.
            mean: Mean scale over rows, `(num_units,)`; read only where it depends on the input.
        """
        if isinstance(self.raw_scale, _Constant):
            raw = self.raw_scale.value
            per_latent = gain.reshape(gain.shape + (1,) * (raw.dim() - gain.dim()))
            factor = per_latent if raw.dim() else gain.mean()
            if self.scale_mode == "relative":  # the floor is added after the location
                raw.copy_(raw_scale(self.min_scale + factor * F.softplus(raw), self.min_scale))
            else:
                raw.copy_(raw_scale(factor * (self.min_scale + F.softplus(raw)), self.min_scale))
            return
        head = self.raw_scale
        bias = head[-1].bias if isinstance(head, nn.Sequential) else head.bias
        assert isinstance(bias, Tensor)
        shift = raw_scale(gain * mean, self.min_scale) - raw_scale(mean, self.min_scale)
        bias.add_(shift.repeat_interleave(len(bias) // len(gain)))

    def forward(self, h: Tensor) -> dist.Distribution:
        """Return the posterior given `h` of shape `(..., in_features)`.

        Returns:
            A normal of batch shape `(..., num_units)` and, above one latent dimension, event shape
            `(latent_dim,)`.
        """
        shape = h.shape[:-1] + self.latent_shape
        loc = self.loc(h).reshape(shape)
        scale = F.softplus(self.raw_scale(h))
        if self.scale_mode == "relative":
            scale = scale * loc.abs()
        scale = self.min_scale + scale
        if self.scale_mode in ("input", "low_rank"):
            scale = scale.reshape(shape)
        kind = GainNormal if self.scale_mode == "relative" else ShiftedNormal
        return kind(loc, scale, validate_args=False).to_event(len(self.latent_shape) - 1)


class _Constant(nn.Module):
    """A learned value that ignores the input."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, h: Tensor) -> Tensor:
        return self.value
