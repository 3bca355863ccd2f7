"""The predictive objective of PAC^m-Bayes, sampled and in closed form."""

from __future__ import annotations

import math

import pyro.distributions as dist
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.loss import SinglePassLoss
from pyro_vdn.infer.single_pass import Pass
from pyro_vdn.infer.site import Site
from pyro_vdn.nn.integrated import Integrated
from pyro_vdn.nn.neurons import LayerOutput
from pyro_vdn.nn.readouts import MarginalOffer
from pyro_vdn.nn.sites import MARGINAL, OUTPUT, POSTERIOR
from pyro_vdn.poutine.clamp import is_normal


class PACmELBO(SinglePassLoss):
    r"""The predictive objective `-sum_rows log 1/S sum_s p(y_row | z_s) + sum_i KL_i`.

    **It is not a bound on the evidence** `log p(y)` (see `Terms.elbo` for that): the average over
    draws stands inside the logarithm while the KL is paid once. It scores what a forecaster is
    judged by, the predictive density, and under it noise is free where the data are noisy, so
    neurons stay alive where an ELBO lets their scale shrink to zero.

    With ``closed_form=True`` the limit `S = infinity` over the *last* neurons is taken in closed
    form at every likelihood site that offers it (`LinearReadout.offer`): exact for a linear readout
    into a normal, by matched moments after a relu or into a Student-t. Particles then only average
    over earlier layers. Of a posterior that is not normal, such as dropout's, the values that were
    drawn are taken as points, under the same weights.

    Args:
        num_particles: Number S of draws per step.
        closed_form: Whether offered marginals are taken.
        joint_weight: Weight `lambda` in [0, 1] of the joint density of a row's outputs in the
            closed form; the product of their marginal densities has weight `1 - lambda`.
        inflation: Share `rho` by which the neurons' variance is enlarged in the closed form. It
            keeps the likelihood's own scale from shrinking to what draws cannot fill.
        variance_weight: Exponent `beta` in [0, 1]: each output's marginal density is weighted by
            its detached variance to the power `beta` (beta-NLL), which fits means evenly where
            noise is uneven.
        max_plate_nesting: Largest number of nested plates; found by running the model once where
            not given.

    Raises:
        InputError: For a weight outside its range, or a closed form where no site offers one.

    Example:
        >>> import torch
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> loss = PACmELBO(closed_form=True)
        >>> terms = loss.terms(model, NeuronGuide(model), torch.randn(8, 3), torch.randn(8, 1))
        >>> terms.log_likelihood["y"].shape
        torch.Size([8])

    Source:
        Morningstar, Alemi, Dillon, *PAC^m-Bayes*, AISTATS 2022; Seitzer et al., *On the Pitfalls of
        Heteroscedastic Uncertainty Estimation*, ICLR 2022 (beta-NLL).
    """

    def __init__(
        self,
        num_particles: int = 1,
        *,
        closed_form: bool = False,
        joint_weight: float = 1.0,
        inflation: float = 0.0,
        variance_weight: float = 0.0,
        max_plate_nesting: float = math.inf,
    ) -> None:
        super().__init__(num_particles, max_plate_nesting=max_plate_nesting)
        for name, value in (("joint_weight", joint_weight), ("variance_weight", variance_weight)):
            if not 0.0 <= value <= 1.0:
                raise InputError(
                    name, expected="a value in [0, 1]", got=str(value), hint=f"{name}=0.0"
                )
        if inflation < 0:
            raise InputError(
                "inflation", expected="at least 0", got=str(inflation), hint="inflation=0.25"
            )
        self.closed_form = closed_form
        self.joint_weight = joint_weight
        self.inflation = inflation
        self.variance_weight = variance_weight

    def log_likelihood(self, run: Pass) -> dict[str, Tensor]:
        """Return the log of the averaged likelihood by site, per row."""
        integrated = self._integrated(run) if self.closed_form else {}
        return {
            site.name: self._averaged(self._row_log_prob(site, integrated.get(site.name)), site)
            for site in run.observed
        }

    def _integrated(self, run: Pass) -> dict[str, Integrated]:
        sites = [site for site in run.observed if MARGINAL in site.infer]
        if not sites:
            raise InputError(
                "closed_form",
                expected="a likelihood site that offers its marginal",
                got=f"none among {[site.name for site in run.observed]}",
                hint="pyro.sample(..., infer=readout.offer(z, likelihood)) with a LinearReadout, "
                "or closed_form=False",
            )
        marginals = {}
        for site in sites:
            neurons = layer_read(run, site)
            if neurons is None:
                raise InputError(
                    f"marginal offered at site '{site.name}'",
                    expected="one that reads what a layer of neurons passed on",
                    got="another tensor, or neurons that another guide draws",
                    hint="`z = neurons(h); readout.offer(z, likelihood)`, for neurons over time "
                    'with steps="parallel"; or closed_form=False',
                )
            marginal = integrate_read(run, site) or _at_drawn(neurons, site)
            if marginal is not None:
                marginals[site.name] = marginal
        return marginals

    def _row_log_prob(self, site: Site, integrated: Integrated | None) -> Tensor:
        """Return each row's log density, `(..., rows, 1)`, without the site's scale."""
        if integrated is None:
            log_prob: Tensor = scale_and_mask(site.fn.log_prob(site.value), mask=site.mask)
            return log_prob.sum(-1, keepdim=True) if log_prob.dim() else log_prob
        value = site.value.squeeze(-2) if site.fn.event_dim else site.value
        integrated = integrated.inflated(self.inflation)
        log_prob = value.new_zeros(())
        if self.joint_weight < 1:
            log_prob = log_prob + (1 - self.joint_weight) * self._marginal(site, integrated, value)
        if self.joint_weight > 0:
            log_prob = log_prob + self.joint_weight * self._joint(site, integrated, value)
        return log_prob

    def _marginal(self, site: Site, integrated: Integrated, value: Tensor) -> Tensor:
        log_prob = integrated.per_output().log_prob(value)
        if self.variance_weight:
            log_prob = log_prob * integrated.shape_diagonal.detach() ** self.variance_weight
        masked: Tensor = scale_and_mask(log_prob, mask=site.mask)
        return masked.sum(-1, keepdim=True)

    def _joint(self, site: Site, integrated: Integrated, value: Tensor) -> Tensor:
        mask = site.mask
        if isinstance(mask, Tensor) and mask.dim() > 0 and mask.shape[-1] > 1:
            raise InputError(
                f"mask of site '{site.name}'",
                expected="a mask of whole rows for the joint density",
                got=f"one of shape {tuple(mask.shape)}",
                hint="joint_weight=0.0",
            )
        log_prob = integrated.joint().log_prob(value).unsqueeze(-1)
        if self.variance_weight:
            geometric_mean = integrated.shape_diagonal.detach().log().mean(-1, keepdim=True).exp()
            log_prob = log_prob * geometric_mean**self.variance_weight
        masked: Tensor = scale_and_mask(log_prob, mask=mask)
        return masked

    def _averaged(self, log_prob: Tensor, site: Site) -> Tensor:
        """Average the density over particles and apply the site's scale, giving `(..., rows)`."""
        if self.num_particles > 1 and log_prob.dim() >= self.max_plate_nesting:
            dim = -int(self.max_plate_nesting)
            log_prob = log_prob.logsumexp(dim) - math.log(log_prob.shape[dim])
        weighted: Tensor = scale_and_mask(log_prob, self._row_scale(site))
        return weighted.sum(-1) if weighted.dim() else weighted

    def _row_scale(self, site: Site) -> Tensor | float:
        scale = site.scale
        if isinstance(scale, Tensor) and scale.dim() > 0 and scale.shape[-1] > 1:
            raise InputError(
                f"scale of site '{site.name}'",
                expected="a scale of whole rows, since the average stands inside the logarithm",
                got=f"one of shape {tuple(scale.shape)}",
                hint="scale rows, not outputs, or use LocalELBO",
            )
        return scale


def _at_drawn(neurons: Site, site: Site) -> Integrated | None:
    """Return a likelihood at the values of neurons that were drawn, or None of observed ones."""
    if neurons.prior is None:
        return None
    offer: MarginalOffer = site.infer[MARGINAL]
    points = dist.Delta(neurons.value, event_dim=neurons.fn.event_dim)
    return offer.integrate(neurons.infer[OUTPUT].moments(points))


def layer_read(run: Pass, site: Site) -> Site | None:
    """Return the neurons whose output a likelihood site's offer reads, observed or not.

    Args:
        run: The pass.
        site: A likelihood site of it that offers its marginal.

    Returns:
        The site of the neurons, or None where the offer reads another tensor.
    """
    offer: MarginalOffer = site.infer[MARGINAL]
    for neurons in (*run.neurons, *run.observed):
        output: LayerOutput | None = neurons.infer.get(OUTPUT)
        if output is not None and output.value is offer.reads:
            return neurons
    return None


def integrate_read(run: Pass, site: Site) -> Integrated | None:
    """Return a likelihood with the neurons that it reads integrated out, as its site offers.

    Args:
        run: The pass.
        site: A likelihood site of it that offers its marginal.

    Returns:
        The predictive distribution, or None where these neurons are unknown, observed or not
        normal.
    """
    neurons = layer_read(run, site)
    if neurons is None or neurons.prior is None:
        return None
    posterior = neurons.infer[POSTERIOR]()
    if not is_normal(posterior):
        return None
    offer: MarginalOffer = site.infer[MARGINAL]
    return offer.integrate(neurons.infer[OUTPUT].moments(posterior))
