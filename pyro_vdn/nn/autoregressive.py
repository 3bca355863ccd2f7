"""The prior of neurons that remember: an autoregression of each unit over time."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import sites
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.hyper import Hyperparameters, check_support, draw_global
from pyro_vdn.nn.shapes import LayerShape, check_not_negative, check_positive
from pyro_vdn.nn.stationary import (
    as_numbers,
    coefficients_per_unit,
    free_from_partials,
    levinson,
    partial_autocorrelations,
    partials_from_free,
    precise,
    unexplained,
)

_LEARNABLE = ("phi", "scale")


class AutoregressiveNormal(nn.Module):
    r"""The prior `z_t ~ Normal(sum_k phi_k z_{t-k}, s^2)` of each unit over time.

    It starts stationary, for order 1 from `Normal(0, s^2 / (1 - phi^2))`: a unit has the same prior
    variance at every step. It stays stationary in training, since what is learned are partial
    autocorrelations in (-1, 1). `VariationalNeurons` with this prior takes `(..., time, features)`.

    Args:
        num_units: Number of units, as the layer has.
        phi: Coefficients: one number (further lags start at 0), or a tensor `(order,)` or
            `(num_units, order)`, for order 1 also `(num_units,)`; or a distribution in (-1, 1), a
            hyper-prior of `phi`, above order 1 of each partial autocorrelation.
        scale: Innovation scale `s`, a number or `(num_units,)`; a distribution, its hyper-prior; or
            None for the scale that gives every unit a prior variance of 1.
        order: Number of lags.
        learn: What is learned where no distribution is given: True, False, or names from
            ``("phi", "scale")``.
        min_scale: Floor under the scale.

    With hyper-priors there are global latent sites ``<path>.phi`` and ``<path>.scale`` of batch
    shape `(num_units,)`, in plates of their own; ``<path>`` is that of this prior, such as
    ``neurons.prior``, read off the running modules. Above order 1 the latent site is
    ``<path>.partials``, the partial autocorrelations, and ``<path>.phi`` follows from it. A layer
    outside of all plates draws them itself; elsewhere enter `drawn()` before the plates.

    Raises:
        InputError: For coefficients that are not stationary, or whose partial autocorrelations come
            within 1e-5 of -1 or 1; a scale that is not finite and above its floor; a hyper-prior
            that leaves (-1, 1); or another number of units than the layer's.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> layer = VariationalNeurons(3, 4, prior=AutoregressiveNormal(4, phi=0.8))
        >>> layer(torch.zeros(5, 10, 3)).shape
        torch.Size([5, 10, 4])
        >>> layer.prior(torch.zeros(10, 3)).variance[[0, 9], 0].detach()
        tensor([1., 1.])

    Source:
        Ruffenach, *Variational Distributional Neuron*, arXiv:2602.18250 (2026), whose penalty
        between windows this makes a prior.
    """

    raw_partials: Tensor
    raw_scale: Tensor

    def __init__(
        self,
        num_units: int,
        *,
        phi: float | Tensor | dist.Distribution = 0.9,
        scale: float | Tensor | dist.Distribution | None = None,
        order: int = 1,
        learn: bool | Collection[str] = True,
        min_scale: float = 1e-3,
    ) -> None:
        super().__init__()
        check_positive(num_units=num_units, order=order)
        check_not_negative(min_scale=min_scale)
        self.num_units, self.order, self.min_scale = num_units, order, min_scale
        self._drawn: Hyperparameters | None = None
        learned = _learned(learn, phi=phi, scale=scale)
        self.phi_prior = phi if isinstance(phi, dist.Distribution) else None
        self.scale_prior = scale if isinstance(scale, dist.Distribution) else None
        partials = None
        if isinstance(phi, dist.Distribution):
            check_support("phi", phi, -1.0, 1.0)
        else:
            partials = partial_autocorrelations(coefficients_per_unit(phi, num_units, order))
            self._keep("raw_partials", free_from_partials(partials), "phi" in learned)
            partials = partials_from_free(self.raw_partials)  # as rounded
        if isinstance(scale, dist.Distribution):
            check_support("scale", scale, 0.0, math.inf)
        else:
            self._keep("raw_scale", self._raw_scale(scale, partials), "scale" in learned)

    def _keep(self, name: str, value: Tensor, learned: bool) -> None:
        if learned:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def _raw_scale(self, scale: float | Tensor | None, partials: Tensor | None) -> Tensor:
        if scale is None:
            if partials is None:
                raise InputError(
                    "scale",
                    expected="a number, a tensor or a distribution beside a hyper-prior of phi",
                    got="None",
                    hint="scale=pyro.distributions.LogNormal(-1.0, 1.0)",
                )
            scale = unexplained(partials)[..., -1].sqrt()
        values = as_numbers("scale", scale)
        if values.shape not in ((), (self.num_units,)):
            raise InputError(
                "scale",
                expected=f"a number or shape ({self.num_units},)",
                got=f"shape {tuple(values.shape)}",
                hint="scale=0.3",
            )
        above = values.expand(self.num_units) - self.min_scale
        if not bool((above > 0).all() and above.isfinite().all()):
            raise InputError(
                "scale",
                expected=f"innovation scales above min_scale={self.min_scale}",
                got=str(values.tolist()),
                hint="raise scale or lower min_scale",
            )
        return above + torch.log(-torch.expm1(-above))

    def bind(self, shape: LayerShape) -> None:
        """Check that a layer has the units of this prior, of one latent dimension each."""
        if (shape.num_units, shape.latent_dim) != (self.num_units, 1):
            raise InputError(
                "AutoregressiveNormal",
                expected=f"a layer of {self.num_units} units of one latent dimension",
                got=f"num_units={shape.num_units}, latent_dim={shape.latent_dim}",
                hint=f"AutoregressiveNormal({shape.num_units * shape.latent_dim}) on as many units",
            )

    def forward(self, h: Tensor) -> GaussianChain:
        """Return the chain over the steps of `h`, `(..., time, features)`.

        Returns:
            A chain of batch shape `(time, num_units)`; hyperparameters drawn by particles come
            before these dimensions.
        """
        if h.dim() < 2 or h.shape[-2] == 0:
            raise InputError(
                "input of neurons with memory",
                expected="shape (..., time, features) with at least one step",
                got=f"shape {tuple(h.shape)}",
                hint="`h.unsqueeze(-2)` for a single step",
            )
        time = h.shape[-2]
        partials, scale = self._hyperparameters()
        rows = levinson(partials)  # each (..., 1, units, order)
        shares = unexplained(partials).squeeze(-3)  # (..., units, order + 1)
        steps = min(time, self.order)
        stationary = scale / shares[..., -1:].mT.sqrt()  # (..., 1, units)
        start = stationary * shares[..., :steps].mT.sqrt()  # (..., steps, units)
        scales = torch.cat([start, scale.expand(*start.shape[:-2], time - steps, -1)], -2)
        coefficients = rows[-1]
        if self.order > 1:
            later = coefficients.expand(*coefficients.shape[:-3], time - steps, -1, -1)
            coefficients = torch.cat([*rows[:steps], later], -3)
        dtype = self._dtype(h.dtype)
        coefficients, scales = coefficients.to(h.device, dtype), scales.to(h.device, dtype)
        return GaussianChain(coefficients, None, scales, validate_args=False)

    def coefficients(self) -> Tensor:
        """Return the autoregressive coefficients `phi`, `(num_units, order)`.

        Hyperparameters that are latent are known inside of `drawn()` only, where those of particles
        come with dimensions to the left.
        """
        return self._as_own(levinson(self._known().partials)[-1].squeeze(-3))

    def innovation_scale(self) -> Tensor:
        """Return the innovation scale `s`, `(num_units,)`."""
        return self._as_own(self._known().scale.squeeze(-2))

    def stationary_scale(self) -> Tensor:
        """Return each unit's prior standard deviation at any step, `(num_units,)`."""
        partials, scale = self._known()
        return self._as_own((scale / unexplained(partials)[..., -1].sqrt()).squeeze(-2))

    def _as_own(self, values: Tensor) -> Tensor:
        return values.to(self._dtype(torch.get_default_dtype()))

    def _dtype(self, default: torch.dtype) -> torch.dtype:
        """Return the dtype of what is learned or fixed, or the default where all is drawn."""
        own = (*self.parameters(), *self.buffers())
        return own[0].dtype if own else default

    def extra_repr(self) -> str:
        """Say the sizes, and what has a hyper-prior, in the module's printed form."""
        priors = {"phi": self.phi_prior, "scale": self.scale_prior}
        given = [f"{name}={prior}" for name, prior in priors.items() if prior is not None]
        return ", ".join([str(self.num_units), f"order={self.order}", *given])

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw the hyperparameters here, and keep them for the layer's run inside.

        Enter it before the plates of rows: ``with layer.prior.drawn(), pyro.plate("data", ...):``,
        in the ``forward`` of the module that holds the layer, from which sites have their names.
        """
        outer, self._drawn = self._drawn, self._hyperparameters()
        try:
            yield
        finally:
            self._drawn = outer

    def _hyperparameters(self) -> Hyperparameters:
        return self._draw() if self._drawn is None else self._drawn

    def _known(self) -> Hyperparameters:
        latent = self.phi_prior is not None or self.scale_prior is not None
        if latent and self._drawn is None:
            raise InputError(
                "AutoregressiveNormal",
                expected="hyperparameters that are known",
                got="latent ones, which have hyper-priors",
                hint="read the draws of their sites, or ask inside of `with prior.drawn():`",
            )
        return self._hyperparameters()

    def _draw(self) -> Hyperparameters:
        path = sites.attribute_path(self)
        units = self.num_units
        if self.phi_prior is None:
            partials = partials_from_free(self.raw_partials)
        elif self.order == 1:
            partials = draw_global(path, "phi", self.phi_prior, (units,)).unsqueeze(-1)
        else:
            partials = draw_global(path, "partials", self.phi_prior, (units, self.order))
            pyro.deterministic(sites.hyper_site(path, "phi"), levinson(partials)[-1])
        if self.scale_prior is None:
            scale = self.min_scale + F.softplus(precise(self.raw_scale))
        else:
            scale = draw_global(path, "scale", self.scale_prior, (units,))
        # Draws of particles have a dimension for time already.
        return Hyperparameters(
            precise(partials if partials.dim() > 2 else partials.unsqueeze(-3)),
            precise(scale if scale.dim() > 1 else scale.unsqueeze(-2)),
        )


def _learned(learn: bool | Collection[str], **given: object) -> Collection[str]:
    if isinstance(learn, bool):
        return _LEARNABLE if learn else ()
    unknown = sorted(set(learn) - set(_LEARNABLE))
    latent = [name for name in learn if isinstance(given.get(name), dist.Distribution)]
    if isinstance(learn, str) or unknown or latent:
        raise InputError(
            "learn",
            expected=f"True, False, or a collection of {_LEARNABLE} without hyper-priors",
            got=repr(learn),
            hint='learn=("phi",) beside a number or tensor phi',
        )
    return learn
