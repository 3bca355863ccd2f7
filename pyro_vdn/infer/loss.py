"""What the single-pass losses share: particles, gradients, and the terms they hand back."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.plates import guess_max_plate_nesting
from pyro_vdn.infer.single_pass import Pass, Program, run_single_pass
from pyro_vdn.infer.site import Site
from pyro_vdn.nn.divergence import sum_over
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.nn.sites import PARTICLES, layer_of


@dataclass(frozen=True)
class Terms:
    r"""The terms of a single-pass loss, averaged over particles, with all weights applied.

    `loss = -(sum log_likelihood + sum local + others) + sum kl + sum penalty`.

    Args:
        log_likelihood: By site name, per row: `(..., rows)`, summed over the last batch dimension
            (outputs).
        kl: By layer path, per unit: `(num_units,)`, summed over rows.
        local: By layer path, log-likelihood of the local reconstruction per unit: `(num_units,)`,
            summed over rows.
        penalty: By layer path, what `penalize` subtracts, per unit: `(num_units,)`, summed over
            rows and over the layer's penalties.
        others: `log p - log q` of the latent sites that are not neurons, a scalar.
        elbo: The evidence lower bound itself: every weight 1 (plates still scale a subsample up), a
            scalar. It differs from `-loss` where weights or a predictive objective are in force. It
            is no bound under `average_draws` and `share_noise`, which say why.

    Example:
        >>> zero = torch.zeros(2)
        >>> Terms({"y": zero + 1}, {"neurons": zero + 3}, {}, {}, zero.sum(), zero.sum()).loss
        tensor(4.)
    """

    log_likelihood: dict[str, Tensor]
    kl: dict[str, Tensor]
    local: dict[str, Tensor]
    penalty: dict[str, Tensor]
    others: Tensor
    elbo: Tensor

    @property
    def loss(self) -> Tensor:
        """The loss that was optimised, a scalar."""
        gain = sum(value.sum() for value in (*self.log_likelihood.values(), *self.local.values()))
        price = sum(value.sum() for value in (*self.kl.values(), *self.penalty.values()))
        return price - gain - self.others

    def local_elbo(self, path: str) -> Tensor:
        """Return each unit's local ELBO, reconstruction minus KL, `(num_units,)`.

        The layer at `path` needs local reconstruction.
        """
        if path not in self.local:
            raise InputError(
                "path",
                expected=f"a layer with local reconstruction, of {list(self.local)}",
                got=repr(path),
                hint="VariationalNeurons(..., local_reconstruction=True)",
            )
        return self.local[path] - self.kl[path]


class SinglePassLoss(ELBO):
    """Base of the losses that run the model once.

    A subclass says how a pass is rewarded for its observations.

    Args:
        num_particles: Number S of draws per step, at least 1.
        max_plate_nesting: Largest number of nested plates of the model; found by running it once
            where not given.
        vectorize_particles: Whether the particles are drawn in one run, in an outermost plate.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> class OnlyKL(SinglePassLoss):
        ...     def log_likelihood(self, run):
        ...         return {}
        >>> model = Regression(3)
        >>> x, y = torch.randn(8, 3), torch.randn(8, 1)
        >>> terms = OnlyKL().terms(model, NeuronGuide(model), x, y)
        >>> bool(terms.loss == terms.kl["neurons"].sum())
        True
    """

    max_plate_nesting: float

    def __init__(
        self,
        num_particles: int = 1,
        *,
        max_plate_nesting: float = math.inf,
        vectorize_particles: bool = True,
    ) -> None:
        check_positive(num_particles=num_particles)
        super().__init__(
            num_particles=num_particles,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
        )

    @abstractmethod
    def log_likelihood(self, run: Pass) -> dict[str, Tensor]:
        """Return the reward for the observations of a pass, by site and per row.

        It is averaged over the particles of the pass.
        """

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the loss as a scalar tensor with a graph.

        Args:
            model: The Pyro program.
            guide: Its guide.
            *args: Positional arguments of both.
            **kwargs: Keyword arguments of both.
        """
        runs = list(self._runs(model, guide, args, kwargs))
        loss = sum(self._loss(run) for run in runs) / len(runs)
        warn_if_nan(loss, "loss")
        return loss  # type: ignore[return-value]

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Return the loss as a number, without a graph."""
        with torch.no_grad():
            return float(torch_item(self.differentiable_loss(model, guide, *args, **kwargs)))

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Compute the loss, add its gradients to the parameters and return its value."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)  # type: ignore[no-untyped-call]
        return float(torch_item(loss))

    def terms(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Terms:
        """Run model and guide and return the loss term by term, together with the true ELBO."""
        runs = [self._terms(run) for run in self._runs(model, guide, args, kwargs)]
        return Terms(
            _mean_of([run.log_likelihood for run in runs]),
            _mean_of([run.kl for run in runs]),
            _mean_of([run.local for run in runs]),
            _mean_of([run.penalty for run in runs]),
            _mean([run.others for run in runs]),
            _mean([run.elbo for run in runs]),
        )

    def _runs(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Iterator[Pass]:
        if self.num_particles == 1:
            yield run_single_pass(model, guide, args, kwargs)
        elif not self.vectorize_particles:
            for _ in range(self.num_particles):
                yield run_single_pass(model, guide, args, kwargs)
        else:
            if math.isinf(self.max_plate_nesting):
                self.max_plate_nesting = 1 + guess_max_plate_nesting(model, args, kwargs)
            with pyro.plate(PARTICLES, self.num_particles, dim=-self.max_plate_nesting):
                yield run_single_pass(model, guide, args, kwargs)

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> Any:
        raise AssertionError("a single-pass loss makes no pair of traces")

    @property
    def particles_per_run(self) -> int:
        """Number of particles that one pass holds."""
        return self.num_particles if self.vectorize_particles else 1

    def _loss(self, run: Pass) -> Tensor | float:
        loss: Tensor | float = -run.log_ratio_of_others() / self.particles_per_run
        for value in self.log_likelihood(run).values():
            loss = loss - value.sum()
        for site in run.local:
            loss = loss - site.log_prob().sum() / self.particles_per_run
        for site in run.penalties:
            loss = loss + sum_over(site.penalty(), site.batch_shape) / self.particles_per_run
        for site in run.neurons:
            if site.is_weighted_out:
                continue
            loss = loss + site.kl_sum() / self.particles_per_run
        return loss

    def _terms(self, run: Pass) -> Terms:
        particles = self.particles_per_run
        kl = self._by_layer(run.neurons, Site.kl)
        local = self._by_layer(run.local, Site.log_prob)
        penalty = self._by_layer(run.penalties, Site.penalty)
        others = torch.as_tensor(run.log_ratio_of_others() / particles)
        return Terms(self.log_likelihood(run), kl, local, penalty, others, self._elbo(run))

    def _by_layer(
        self, sites: Iterable[Site], value: Callable[[Site], Tensor]
    ) -> dict[str, Tensor]:
        """Return each layer's total per unit; one that runs step by step has a site per step."""
        totals: dict[str, Tensor] = {}
        for site in sites:
            path, paid = layer_of(site.name), self._per_unit(value(site), site)
            totals[path] = totals[path] + paid if path in totals else paid
        return totals

    def _per_unit(self, values: Tensor, site: Site) -> Tensor:
        per_unit = values.expand(site.batch_shape).reshape(-1, site.batch_shape[-1]).sum(0)
        return per_unit / self.particles_per_run

    def _elbo(self, run: Pass) -> Tensor:
        """Return the evidence lower bound of a pass, whatever the objective."""
        total = torch.as_tensor(run.log_ratio_of_others())
        for site in (*run.observed, *run.local):
            total = total + site.natural(site.fn.log_prob(site.value)).sum()
        for site in run.neurons:
            total = total - sum_over(site.natural(site.unweighted_kl()), site.batch_shape)
        return total / self.particles_per_run


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean(0)


def _mean_of(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: _mean([value[name] for value in values]) for name in values[0]}
