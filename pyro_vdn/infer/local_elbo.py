"""The evidence lower bound over local terms, in one pass."""

from __future__ import annotations

from torch import Tensor

from pyro_vdn.infer.loss import SinglePassLoss
from pyro_vdn.infer.single_pass import Pass
from pyro_vdn.infer.site import Site


class LocalELBO(SinglePassLoss):
    r"""The negative ELBO of a model with neurons, from a single run of the model.

    `-ELBO = -1/S sum_s log p(y | z_s) + sum_i KL(q(z_i | h_i) || p(z_i))`, with `z_s` drawn from
    the posteriors offered at the neurons' sites, and the KL in closed form where it exists, else
    estimated from the draw. Value and gradients equal those of the two-pass `TraceMeanField_ELBO`
    for the same noise; nothing is evaluated that is not used. Other latent sites take the draws of
    `NeuronGuide(model, others=...)` and enter as `log p - log q`.

    The loss runs *the model it is given*, with the effects wrapped around it; of a `NeuronGuide` it
    runs only `others`.

    Args:
        num_particles: Number S of draws per step.
        max_plate_nesting: Largest number of nested plates; found by running the model once where
            not given.
        vectorize_particles: Whether the particles are drawn in one run; then all batch dimensions
            must be in plates.

    Raises:
        InputError: For a latent site without a pathwise gradient.
        OneSidedEffectError: For an effect on the guide that the model does not have.

    Example:
        >>> import pyro, torch
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> x, y = torch.randn(8, 3), torch.randn(8, 1)
        >>> terms = LocalELBO().terms(model, NeuronGuide(model), x, y)
        >>> terms.log_likelihood["y"].shape, terms.kl["neurons"].shape
        (torch.Size([8]), torch.Size([50]))
    """

    def log_likelihood(self, run: Pass) -> dict[str, Tensor]:
        """Return the expected log-likelihood by site, per row."""
        return {site.name: self._per_row(site) for site in run.observed}

    def _per_row(self, site: Site) -> Tensor:
        per_row = site.log_prob()
        if per_row.dim() > 0:
            per_row = per_row.sum(-1)  # (..., rows, outputs) -> (..., rows)
        if self.particles_per_run > 1:
            # The particle plate's dimension, counted from the right, has moved by one.
            dim = 1 - int(self.max_plate_nesting)
            per_row = per_row.mean(dim) if per_row.dim() >= -dim else per_row
        return per_row
