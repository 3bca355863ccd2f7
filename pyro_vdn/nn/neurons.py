"""The layer of variational distributional neurons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, get_args

import pyro
import pyro.distributions as dist
from torch import Size, Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import sites
from pyro_vdn.nn.local import LocalDecoder
from pyro_vdn.nn.moments import Moments
from pyro_vdn.nn.plates import NeuronPlate
from pyro_vdn.nn.posteriors import NormalPosterior
from pyro_vdn.nn.priors import StandardNormal
from pyro_vdn.nn.shapes import LayerShape, check_choice, check_features, check_positive

Pool = Literal["mean", "sum", "flatten"]


class VariationalNeurons(nn.Module):
    r"""A layer whose units are random, each with its own prior and amortized posterior.

    For input `h` the layer says `z_i ~ p(z_i)` at a Pyro sample site, in a neuron plate, and passes
    the *sample* on. At its site it offers its amortized posterior `q(z_i | h)`: a guide or loss
    that takes the offer (`NeuronGuide`, `LocalELBO`) draws `z_i = mu_i(h) + sigma_i(h) eps_i` and
    pays `KL_i = KL(q(z_i | h) || p(z_i))`; any other program sees the prior.

    Args:
        in_features: Size of the last dimension of the input.
        num_units: Number of neurons.
        latent_dim: Latent dimensions k of each neuron; k = 1 is the atomic neuron.
        prior: A module with ``forward(h) -> Distribution``; default `StandardNormal()`.
        posterior: A module with ``forward(h) -> Distribution``; default
            `NormalPosterior(scale="unit")`.
        pool: How the k dimensions of a neuron leave the layer: their ``"mean"``, their ``"sum"``,
            or all of them (``"flatten"``).
        local_reconstruction: Whether each unit also decodes its own projection of `h` (see
            `LocalDecoder`).

    Shape:
        Input `(..., in_features)`; output `(..., num_units)`, or `(..., num_units * latent_dim)`
        for ``"flatten"``. The site ``<attribute path>.z`` has batch shape `(..., num_units)` and,
        for k > 1, event shape `(latent_dim,)`.

    A layer that runs on its own is called ``z``; layers of one program belong into one module.

    Raises:
        InputError: For a size that is not positive, an unknown pool, or an input of the wrong dtype
            or last dimension.

    Example:
        >>> import torch
        >>> _ = pyro.set_rng_seed(0)
        >>> layer = VariationalNeurons(3, 4)
        >>> trace = pyro.poutine.trace(layer).get_trace(torch.zeros(5, 3))
        >>> trace.nodes["z"]["fn"].batch_shape
        torch.Size([5, 4])

    Source:
        Ruffenach, *Variational Distributional Neuron*, arXiv:2602.18250 (2026).
    """

    def __init__(
        self,
        in_features: int,
        num_units: int,
        *,
        latent_dim: int = 1,
        prior: nn.Module | None = None,
        posterior: nn.Module | None = None,
        pool: Pool = "mean",
        local_reconstruction: bool = False,
    ) -> None:
        super().__init__()
        check_positive(in_features=in_features, num_units=num_units, latent_dim=latent_dim)
        check_choice("pool", pool, get_args(Pool))
        self.shape = LayerShape(in_features, num_units, latent_dim)
        self.pool = pool
        self.prior = _bound(prior if prior is not None else StandardNormal(), self.shape)
        self.posterior = _bound(
            posterior if posterior is not None else NormalPosterior(), self.shape
        )
        self.local_decoder = LocalDecoder(self.shape) if local_reconstruction else None

    def forward(self, h: Tensor) -> Tensor:
        """Sample the neurons given `h` of shape `(..., in_features)` and return them pooled."""
        check_features(f"input of {type(self).__name__}", h, self.shape.in_features)
        path = sites.attribute_path(self)
        batch_shape = Size((*h.shape[:-1], self.shape.num_units))
        output = LayerOutput(self._output_moments)
        infer = {
            sites.POSTERIOR: functools.cache(
                lambda: self._over_units(self.posterior(h), batch_shape)
            ),
            sites.OUTPUT: output,
        }
        with NeuronPlate(sites.units_plate(path), self.shape.num_units):
            prior = self._over_units(self.prior(h), batch_shape)
            z: Tensor = pyro.sample(sites.latent_site(path), prior, infer=infer)
            if self.local_decoder is not None:
                self.local_decoder(sites.local_site(path), h, z)
        output.value = self._pooled(z)
        return output.value

    def extra_repr(self) -> str:
        """Say the sizes in the module's printed form."""
        shape = self.shape
        sizes = f"{shape.in_features}, {shape.num_units}, latent_dim={shape.latent_dim}"
        return f"{sizes}, pool={self.pool!r}"

    def _over_units(self, distribution: dist.Distribution, batch_shape: Size) -> dist.Distribution:
        """Expand a distribution, possibly scalar, to the layer's batch and event shape."""
        missing = self.shape.event_dim - distribution.event_dim
        if missing and len(distribution.batch_shape):
            raise InputError(
                type(distribution).__name__,
                expected=f"an event of {self.shape.latent_dim} latent dimensions, or a scalar",
                got=f"batch shape {tuple(distribution.batch_shape)} and no event",
                hint="return a distribution of batch shape (num_units,) after `.to_event(1)`",
            )
        if missing:
            latent = batch_shape + self.shape.latent[1:]
            return distribution.expand(latent).to_event(missing)
        return distribution.expand(batch_shape)

    def _pooled(self, z: Tensor) -> Tensor:
        if self.shape.latent_dim == 1:
            return z
        if self.pool == "flatten":
            return z.flatten(start_dim=-2)
        return z.mean(-1) if self.pool == "mean" else z.sum(-1)

    def _output_moments(self, posterior: dist.Distribution) -> Moments:
        """Return the moments of the layer's output, given the distribution of its latents."""
        variance = posterior.variance
        if self.shape.latent_dim > 1 and self.pool == "mean":
            variance = variance / self.shape.latent_dim
        return Moments(self._pooled(posterior.mean), self._pooled(variance))


class LayerOutput:
    """What a layer passed on, with its moments: the offer by which a readout finds its neurons.

    Args:
        moments: A function from the distribution of the layer's latents to moments of its output.

    Example:
        >>> LayerOutput(lambda latents: Moments(latents.mean, latents.variance)).value is None
        True
    """

    def __init__(self, moments: Callable[[dist.Distribution], Moments]) -> None:
        self.moments = moments
        self.value: Tensor | None = None


def _bound(part: nn.Module, shape: LayerShape) -> nn.Module:
    """Let a part make its parameters for this layer, where it has any to make."""
    bind: Callable[[LayerShape], None] | None = getattr(part, "bind", None)
    if bind is None:
        return part
    if any(True for _ in part.parameters()):
        raise InputError(
            type(part).__name__,
            expected="a part of one layer",
            got="one that another layer has already bound",
            hint="make a new one for each layer",
        )
    bind(shape)
    return part
