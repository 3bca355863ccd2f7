"""Calibration on the data that were fitted: each left out in turn, by reweighting the draws."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from pyro_vdn.diagnostics._checks import check_draws, check_finite, in_chunks
from pyro_vdn.diagnostics.calibration.calibration import shares_of_cells
from pyro_vdn.diagnostics.inference.psis import RELIABLE_K_HAT, psis
from pyro_vdn.errors import InputError


class LooPit(NamedTuple):
    """Leave-one-out probability integral transforms, and whether to believe them.

    Args:
        values: In [0, 1], shape of the target.
        k_hat: Shape of the tail of each row's weights, shape of the log-likelihood without draws.

    Example:
        >>> import torch
        >>> LooPit(torch.rand(3), torch.tensor([0.1, 0.9, torch.inf])).reliable
        tensor([ True, False, False])
    """

    values: Tensor
    k_hat: Tensor

    @property
    def reliable(self) -> Tensor:
        """Rows with `k_hat` of at most 0.7, shape of `k_hat`."""
        return self.k_hat <= RELIABLE_K_HAT


def loo_pit(
    draws: Tensor,
    target: Tensor,
    log_likelihood: Tensor,
    *,
    randomised: bool = True,
    seed: int = 0,
) -> LooPit:
    r"""Place each target in its prediction from all *other* data, without fitting again.

    .. math:: w_{si} \propto \frac{1}{p(y_i \mid \theta_s)} \text{ (Pareto smoothed)}, \qquad
        u_i = \frac{S r_i + v_i (S t_i + 1)}{S + 1}

    with :math:`r_i = \sum_s w_{si} 1[x_{si} < y_i]`, :math:`t_i = \sum_s w_{si} 1[x_{si} = y_i]`
    and :math:`v_i` uniform; with equal weights this is :func:`pit`. Without reweighting, targets
    that were fitted lie too near the middle of their own predictions.

    **Only for global latents.** Weights carry a draw from the posterior with row `i` to the one
    without it, which must be much alike. A *local* latent, such as the neurons of a row that an
    encoder reads from the row's own target, is informed by that one target alone: leaving it out
    takes the latent back to its prior, the weights of a few draws decide, and `k_hat` is large
    nearly everywhere. A log-likelihood with the local latents integrated out (the marginal) cures
    this if it is good, and if the outcomes are drawn so too: from local latents that have not seen
    the row's target. Better: hold rows out, predict them with a guide that never sees their
    targets, and use :func:`pit`.

    Args:
        draws: Draws of the outcome given :math:`\theta_s`, shape `(draws, *target.shape)`.
        target: Observed values, shape `(rows, ...)`.
        log_likelihood: :math:`\log p(y_i \mid \theta_s)` under the same draws, shape `(draws, ...)`
            of the target or its leading dimensions: `(draws, rows)` leaves out whole rows.
        randomised: Spread each value over its cell; otherwise take the middle.
        seed: Seed of :math:`v`. The global random state is neither read nor changed.

    Returns:
        Values of the target's shape, and `k_hat` of the log-likelihood's without draws.

    Raises:
        InputError: If shapes disagree or a value is not finite.

    Example:
        >>> import torch
        >>> y = torch.randn(30)  # y ~ Normal(mu, 1) with a flat prior on mu
        >>> mu = y.mean() + torch.randn(1000, 1) / 30**0.5
        >>> found = loo_pit(mu + torch.randn(1000, 30), y, -0.5 * (y - mu).square())
        >>> found.values.shape, bool(found.reliable.all())
        (torch.Size([30]), True)

    Source: Gabry et al., *Visualization in Bayesian Workflow*, 2019; weights: Vehtari, Gelman and
    Gabry, *Practical Bayesian Model Evaluation Using Leave-One-Out Cross-Validation and WAIC*,
    2017.
    """
    check_draws(draws, target)
    check_finite("log_likelihood", log_likelihood)
    left_out = log_likelihood.shape[1:]
    if len(log_likelihood) != len(draws) or left_out != target.shape[: len(left_out)]:
        raise InputError(
            "log_likelihood",
            expected=f"shape {tuple(draws.shape)} or its leading dimensions",
            got=f"shape {tuple(log_likelihood.shape)}",
            hint="one log-density per draw and row, from the draws that made the outcomes",
        )
    smoothed = psis(-log_likelihood)
    weights = smoothed.log_weights.exp().to(draws.dtype)
    count, cells = len(draws), left_out.numel()

    def of_cells(x: Tensor, y: Tensor, w: Tensor, v: Tensor) -> Tensor:
        below = (w.mT.unsqueeze(-1) * (x < y)).sum(0)  # (draws, cells, inner) -> (cells, inner)
        ties = (w.mT.unsqueeze(-1) * (x == y)).sum(0)
        return ((count * below + v * (count * ties + 1)) / (count + 1)).mT

    share = shares_of_cells(draws[0], randomised=randomised, seed=seed)
    values = in_chunks(
        of_cells,
        draws.reshape(count, cells, -1),
        target.reshape(cells, -1),
        weights.reshape(count, cells).mT,
        share.reshape(cells, -1),
    ).mT
    return LooPit(values.reshape(target.shape).clamp(0.0, 1.0), smoothed.k_hat)
