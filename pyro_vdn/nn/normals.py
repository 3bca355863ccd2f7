"""Normals that are known to be something more, and so cost less."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.nn.blocked import product_sum


class UnitNormal(dist.Normal):
    """A normal that is known to have location 0 and scale 1, which makes its KL cheaper.

    Args:
        loc: Location, `(...)`.
        scale: Scale, `(...)`.
        validate_args: Whether to check them.

    Example:
        >>> UnitNormal(torch.zeros(()), torch.ones(())).expand([3]).batch_shape
        torch.Size([3])
    """


class ShiftedNormal(dist.Normal):
    """A normal that draws `loc + scale * eps` in one pass over memory, and back in one.

    Args:
        loc: Location, `(...)`.
        scale: Scale, `(...)`.
        validate_args: Whether to check them.

    Example:
        >>> ShiftedNormal(torch.zeros(2, 3), 1.0).rsample().shape
        torch.Size([2, 3])
    """

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's
        """Draw with a gradient to location and scale."""
        noise = self.loc.new_empty(self._extended_shape(sample_shape)).normal_()
        draw: Tensor = _Shift.apply(  # type: ignore[no-untyped-call]
            unexpanded(self.loc), unexpanded(self.scale), noise
        )
        return draw


class GainNormal(ShiftedNormal):
    """A normal whose scale is a share of its location: its noise is a gain, `loc (1 + a eps)`.

    By itself it is drawn like any other. Locations that share one `eps`, as under `share_noise`,
    take it with their own sign, so that the gain is the same for all of them.

    Args:
        loc: Location, `(...)`.
        scale: Scale `a |loc|`, `(...)`.
        validate_args: Whether to check them.

    Example:
        >>> isinstance(GainNormal(torch.ones(2, 3), 0.5).expand([4, 2, 3]), GainNormal)
        True
    """


class _Shift(torch.autograd.Function):
    """`loc + scale * noise` without a temporary; the gradient is that of the plain expression."""

    generate_vmap_rule = True

    @staticmethod
    def forward(loc: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
        return torch.addcmul(loc, noise, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        loc, scale, noise = inputs
        ctx.save_for_backward(noise)
        ctx.shapes = loc.shape, scale.shape

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (noise,) = ctx.saved_tensors
        loc, scale = ctx.shapes
        return grad.sum_to_size(loc), product_sum(grad, noise, scale), None


def unexpanded(tensor: Tensor) -> Tensor:
    """Undo `expand`: return the smaller tensor of which this one, of shape `(...)`, is a view."""
    base = tensor._base
    if base is not None and base.dim() <= tensor.dim():
        try:
            again = base.expand(tensor.shape)
            # Under nested transforms of `torch.func` there are no data to point to.
            same = again.stride() == tensor.stride() and again.data_ptr() == tensor.data_ptr()
        except RuntimeError:
            return tensor
        if same:
            return base
    return tensor
