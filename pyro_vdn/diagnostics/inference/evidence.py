"""The evidence of observed data by importance sampling with a guide, and its error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.diagnostics.inference._importance import log_weights
from pyro_vdn.diagnostics.inference.psis import RELIABLE_K_HAT, Smoothed, psis
from pyro_vdn.errors import InputError
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.shapes import check_positive


@dataclass(frozen=True, eq=False)
class EvidenceEstimate:
    r"""An estimate of log evidence from the weights of draws, in nats.

    Args:
        log_evidence: :math:`\log \frac{1}{S} \sum_s w_s`, `(...)`.
        error: Its standard error by the delta method,
            :math:`\operatorname{sd}(w) / (\sqrt{S} \bar w)`, `(...)`.
        elbo: The evidence lower bound from the same draws, the mean of :math:`\log w_s`, `(...)`.
        elbo_error: Its standard error, `(...)`.
        effective_draws: :math:`(\sum_s w_s)^2 / \sum_s w_s^2`, `(...)`.
        k_hat: Shape of the weights' tail, see :class:`Smoothed`, `(...)`.

    Example:
        >>> estimate = EvidenceEstimate.of(torch.tensor([1.0, 3.0]).log())
        >>> estimate.log_evidence.exp(), estimate.error
        (tensor(2.), tensor(0.5000))
    """

    log_evidence: Tensor
    error: Tensor
    elbo: Tensor
    elbo_error: Tensor
    effective_draws: Tensor
    k_hat: Tensor

    @classmethod
    def of(cls, log_weights: Tensor) -> EvidenceEstimate:
        """Estimate from log weights `(draws, ...)` of at least two draws."""
        draws = len(log_weights)
        log_evidence = log_weights.logsumexp(dim=0) - math.log(draws)
        relative = torch.exp(log_weights - log_evidence) - 1.0
        return cls(
            log_evidence,
            (relative.square().mean(dim=0) / (draws - 1)).sqrt(),
            log_weights.mean(dim=0),
            log_weights.std(dim=0) / math.sqrt(draws),
            Smoothed(log_weights.log_softmax(dim=0), log_evidence).effective_draws,
            psis(log_weights).k_hat,
        )

    @property
    def bias(self) -> Tensor:
        r"""By how much the estimate is too low on average, to second order, `(...)`.

        The weights' mean is unbiased for the evidence; by Jensen's inequality its logarithm is
        :math:`\operatorname{error}^2 / 2` too low.
        """
        return 0.5 * self.error.square()


@dataclass(frozen=True, eq=False)
class Evidence:
    """Log evidence of a data set, in nats, with its error.

    Args:
        joint: The estimate from whole draws, of shape `()`: weights of all rows together. Its k-hat
            judges the guide as an approximation of the joint posterior.
        rows: The estimate of each row by itself, of shape `(rows,)`; None where rows share a latent
            site, so that the evidence is no product over rows.
        num_samples: Number of draws.

    Example:
        >>> weights = torch.tensor([[0.0, 0.1], [0.1, 0.0], [0.0, 0.0]])
        >>> each = EvidenceEstimate.of(weights)
        >>> evidence = Evidence(EvidenceEstimate.of(weights.sum(-1)), each, 3)
        >>> round(evidence.log_evidence, 4)
        0.0689
    """

    joint: EvidenceEstimate
    rows: EvidenceEstimate | None
    num_samples: int

    @property
    def log_evidence(self) -> float:
        """Log evidence of all rows: the sum over rows where they are independent."""
        return self._total("log_evidence")

    @property
    def error(self) -> float:
        """Standard error of `log_evidence`; rows have noise of their own, so errors add up."""
        return self._error("error")

    @property
    def bias(self) -> float:
        """By how much `log_evidence` is too low on average: it adds up over rows, unlike noise."""
        return self._total("bias")

    @property
    def elbo(self) -> float:
        """The evidence lower bound from the same draws."""
        return self._total("elbo")

    @property
    def elbo_error(self) -> float:
        """Standard error of `elbo`."""
        return self._error("elbo_error")

    @property
    def worst_k_hat(self) -> float:
        """The largest k-hat of the weights that `log_evidence` is made of."""
        return float(self._used.k_hat.max())

    @property
    def is_reliable(self) -> bool:
        """Whether no tail of the weights used is heavier than 0.7."""
        return self.worst_k_hat <= RELIABLE_K_HAT

    @property
    def _used(self) -> EvidenceEstimate:
        return self.joint if self.rows is None else self.rows

    def _total(self, name: str) -> float:
        return float(getattr(self._used, name).sum())

    def _error(self, name: str) -> float:
        return float(getattr(self._used, name).square().sum().sqrt())

    def __str__(self) -> str:
        """Say the estimate, its error, the bound beside it, and whether it is to be trusted."""
        lines = [
            f"log evidence {self.log_evidence:.3f} ± {self.error:.3f} nats "
            f"({self.num_samples} draws, too low by about {self.bias:.3f})",
            f"ELBO {self.elbo:.3f} ± {self.elbo_error:.3f} nats",
        ]
        if self.rows is not None:
            bad = int((self.rows.k_hat > RELIABLE_K_HAT).sum())
            lines.append(
                f"k-hat of {self.rows.k_hat.numel()} rows: worst {self.worst_k_hat:.2f}, "
                f"{bad} above {RELIABLE_K_HAT}"
            )
        lines.append(f"k-hat of whole draws: {float(self.joint.k_hat):.2f}")
        if not self.is_reliable:
            lines.append(
                "not reliable: the guide misses mass of the posterior, or there are too few draws"
            )
        return "\n".join(lines)


def importance_evidence(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 1000,
    chunk_size: int = 100,
    seed: int = 0,
    **kwargs: Any,
) -> Evidence:
    r"""Estimate the log evidence of observed data by importance sampling with the guide.

    .. math:: \log p(y_n) \approx \log \frac{1}{S} \sum_s
        \frac{p(y_n \mid z_{ns}) \, p(z_{ns})}{q(z_{ns} \mid x_n)}, \qquad z_{ns} \sim q

    Row by row where every latent site stands in the plate of rows: then the total is their sum.
    Rows that share a latent site, such as a hyperparameter, have no evidence by themselves, and
    whole draws are weighted. Exactly unbiased for the evidence, too low for its logarithm by about
    half the squared error.

    It is the evidence of the model as it is written: weights on the KL and penalties do not count;
    observations of local reconstruction do, as in the ELBO of :class:`pyro_vdn.infer.loss.Terms`.
    Runs without gradients in evaluation mode; the caller's random state is untouched.

    Args:
        model: A Pyro program with neurons, called with `args` and `kwargs`, targets included.
        guide: Its guide, such as `NeuronGuide`.
        *args: Positional arguments of both.
        num_samples: Number S of draws, at least 2; k-hat needs 21, and is steady from 1,000 on.
        chunk_size: Draws that are held at once.
        seed: Seed of the draws.
        **kwargs: Keyword arguments of both.

    Returns:
        The evidence in all and, where there is such a thing, of each row.

    Raises:
        InputError: For fewer than two draws, a model that observes nothing, a subsample, sites that
            a loss enumerates, noise that is shared, or densities that are no numbers.
        OneSidedEffectError: For an effect on the guide that the model does not have.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, num_units=4)
        >>> x, y = torch.zeros(5, 3), torch.zeros(5, 1)
        >>> evidence = importance_evidence(model, NeuronGuide(model), x, y, num_samples=50)
        >>> evidence.rows.log_evidence.shape, evidence.log_evidence >= evidence.elbo
        (torch.Size([5]), True)

    Source: Burda, Grosse and Salakhutdinov, *Importance Weighted Autoencoders*, 2016; Yao, Vehtari,
    Simpson and Gelman, *Yes, but Did It Work?: Evaluating Variational Inference*, 2018.
    """
    check_positive(num_samples=num_samples, chunk_size=chunk_size)
    if num_samples < 2:
        raise InputError(
            "num_samples", expected="at least 2", got=str(num_samples), hint="num_samples=1000"
        )
    give_own_store(model, guide)
    with own_noise(seed), evaluating(model, guide), torch.no_grad():
        found = log_weights(
            model, guide, args, kwargs, num_samples=num_samples, chunk_size=chunk_size
        )
    rows = None if found.rows is None else EvidenceEstimate.of(found.rows)
    return Evidence(EvidenceEstimate.of(found.total), rows, num_samples)
