"""The layer of variational distributional neurons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, get_args

import pyro
import pyro.distributions as dist
import pyro.poutine
import torch
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Size, Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import sites
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.following import Present, following
from pyro_vdn.nn.local import LocalDecoder
from pyro_vdn.nn.markov import run_chain
from pyro_vdn.nn.moments import Moments
from pyro_vdn.nn.parts import bound
from pyro_vdn.nn.plates import NeuronPlate
from pyro_vdn.nn.posteriors import NormalPosterior
from pyro_vdn.nn.priors import StandardNormal
from pyro_vdn.nn.shapes import LayerShape, check_choice, check_features, check_mask, check_positive

Pool = Literal["mean", "sum", "flatten"]
Steps = Literal["parallel", "markov"]


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
        steps: How a prior with memory runs over time: ``"parallel"``, all steps at one site, or
            ``"markov"``, a `pyro.markov` loop with a site per step. Both are the same density.

    Shape:
        Input `(..., in_features)`; output `(..., num_units)`, or `(..., num_units * latent_dim)`
        for ``"flatten"``. The site ``<attribute path>.z`` has batch shape `(..., num_units)` and,
        for k > 1, event shape `(latent_dim,)`. With ``steps="markov"`` the sites are
        ``<attribute path>.z_0``, ``z_1``, ... of batch shape `(..., 1, num_units)`.

    With a prior over time, `AutoregressiveNormal`, the input is `(..., time, in_features)`, rows
    stand at dim -3, and the layer has its own plate ``<attribute path>.time`` at dim -2, so it runs
    outside of the model's plates of time. Sequences of different lengths are padded to one, with a
    mask ``torch.arange(time) < lengths.unsqueeze(-1)``.

    A layer that runs on its own is called ``z``; layers of one program belong into one module.

    Raises:
        InputError: For a size that is not positive, an unknown choice, an input of the wrong dtype
            or last dimension, a mask that does not fit it, or memory inside of a plate of time.

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
        steps: Steps = "parallel",
    ) -> None:
        super().__init__()
        check_choice("steps", steps, get_args(Steps))
        self.steps = steps
        check_positive(in_features=in_features, num_units=num_units, latent_dim=latent_dim)
        check_choice("pool", pool, get_args(Pool))
        self.shape = LayerShape(in_features, num_units, latent_dim)
        self.pool = pool
        self.prior = bound(prior if prior is not None else StandardNormal(), self.shape)
        self.posterior = bound(
            posterior if posterior is not None else NormalPosterior(), self.shape
        )
        self.local_decoder = LocalDecoder(self.shape) if local_reconstruction else None

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sample the neurons given `h` of shape `(..., in_features)` and return them pooled.

        Args:
            h: Input.
            mask: Boolean, `(...)`: which rows or steps of the input are there. Elsewhere `h` is not
                read: the posterior follows the prior given the past, unless it looks ahead and
                later input tells of the gap. Steps after the end are a forecast, and cost no KL.
        """
        check_features(f"input of {type(self).__name__}", h, self.shape.in_features)
        if mask is not None:
            check_mask(mask, h)
            h = h.masked_fill(~mask.unsqueeze(-1), 0.0)
        path = sites.attribute_path(self)
        prior = self._prior(h)
        if self.steps == "markov" and not isinstance(prior, GaussianChain):
            raise InputError(
                f"layer '{path}'",
                expected='a prior over time for steps="markov"',
                got=f"a {type(prior).__name__}",
                hint="prior=AutoregressiveNormal(num_units)",
            )
        posterior = functools.cache(lambda: self._given(prior, h, mask))
        with NeuronPlate(sites.units_plate(path), self.shape.num_units):
            if not isinstance(prior, GaussianChain):
                return self._sampled(path, h, mask, prior, posterior)
            _refuse_time(path)
            z = run_chain(path, prior, posterior, mask) if self.steps == "markov" else None
            with pyro.plate(sites.time_plate(path), h.shape[-2], dim=-2):
                if z is None:
                    return self._sampled(path, h, mask, prior, posterior)
                self._reconstruct(path, h, mask, z)
                return z

    def _sampled(
        self,
        path: str,
        h: Tensor,
        mask: Tensor | None,
        prior: dist.Distribution,
        posterior: Callable[[], dist.Distribution],
    ) -> Tensor:
        """Sample all neurons at one site and return them pooled."""
        output = LayerOutput(self._output_moments)
        infer: dict[str, Any] = {sites.POSTERIOR: posterior, sites.OUTPUT: output}
        if mask is not None:
            infer[sites.PRESENT] = Present.of(mask)
        z: Tensor = pyro.sample(sites.latent_site(path), prior, infer=infer)
        self._reconstruct(path, h, mask, z)
        output.value = self._pooled(z)
        return output.value

    def _reconstruct(self, path: str, h: Tensor, mask: Tensor | None, z: Tensor) -> None:
        """Let each unit decode its own projection of the input, where there is any."""
        if self.local_decoder is None:
            return
        with nullcontext() if mask is None else pyro.poutine.mask(mask=mask.unsqueeze(-1)):
            self.local_decoder(sites.local_site(path), h, z)

    def _prior(self, h: Tensor) -> dist.Distribution:
        prior = self.prior(h)
        batch_shape = Size((*h.shape[:-1], self.shape.num_units))
        if isinstance(prior, GaussianChain):  # hyperparameters may have particles to their left
            batch_shape = torch.broadcast_shapes(batch_shape, prior.batch_shape)  # type: ignore[no-untyped-call]
        return self._over_units(prior, batch_shape)

    def _given(self, prior: dist.Distribution, h: Tensor, mask: Tensor | None) -> dist.Distribution:
        """Return the posterior; one that builds on the prior is handed it."""
        if getattr(self.posterior, "needs_prior", False):
            built: dist.Distribution = self.posterior(h, prior, mask)
            return built
        posterior = self._over_units(self.posterior(h), Size(prior.batch_shape))
        return posterior if mask is None else following(prior, posterior, mask)

    def extra_repr(self) -> str:
        """Say the sizes in the module's printed form."""
        shape = self.shape
        sizes = f"{shape.in_features}, {shape.num_units}, latent_dim={shape.latent_dim}"
        steps = "" if self.steps == "parallel" else f", steps={self.steps!r}"
        return f"{sizes}, pool={self.pool!r}{steps}"

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


def _refuse_time(path: str) -> None:
    """Refuse plates at dim -2, where a layer with memory has its own plate of steps."""
    taken = [
        frame for frame in _PYRO_STACK if isinstance(frame, IndepMessenger) and frame.dim == -2
    ]
    if taken:
        raise InputError(
            f"layer '{path}'",
            expected="a layer with memory outside of plates at dim -2, where it has its time",
            got=f"one inside of plate '{taken[0].name}'",
            hint='`with pyro.plate("rows", len(x), dim=-3): z = neurons(h)`; where it is one of '
            "particles, a loss with max_plate_nesting=2",
        )


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
