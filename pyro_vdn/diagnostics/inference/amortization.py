"""The amortization gap: what each row would gain from a posterior of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.diagnostics.inference._importance import run_draws, weigh
from pyro_vdn.diagnostics.inference._refinement import Change, Refinement, no_changes
from pyro_vdn.errors import InputError
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.plates import guess_max_plate_nesting
from pyro_vdn.infer.single_pass import Program, run_single_pass
from pyro_vdn.nn.shapes import check_positive

_SALT = 0x5EED  # fresh draws for the evaluation


@dataclass(frozen=True, eq=False)
class AmortizationGap:
    """What a refined posterior gains over the amortized one, row by row, in nats.

    Args:
        gap: Refined less amortized ELBO, `(rows,)`, from the same fresh draws; at least 0 up to its
            error where the refinement has settled.
        error: Standard error of the gap, `(rows,)`.
        amortized: ELBO of the amortized posterior, `(rows,)`.
        refined: ELBO of the refined one, `(rows,)`.
        shift: By site, how far the refinement moved the location, in standard deviations of the
            amortized posterior, `(rows, ..., units)`.
        factor: By site, what it multiplied the scale by, of the same shape.
        late_gain: What of the refined ELBO came in the second half of the steps, `(rows,)`.

    Example:
        >>> gap, error, none = torch.tensor([0.1, 0.3]), torch.tensor([0.03, 0.04]), torch.zeros(2)
        >>> found = AmortizationGap(gap, error, none, gap, {}, {}, none)
        >>> round(found.mean, 4), round(found.mean_error, 4)
        (0.2, 0.025)
    """

    gap: Tensor
    error: Tensor
    amortized: Tensor
    refined: Tensor
    shift: dict[str, Tensor]
    factor: dict[str, Tensor]
    late_gain: Tensor

    @property
    def mean(self) -> float:
        """Mean gap of these rows, in nats."""
        return float(self.gap.mean())

    @property
    def mean_error(self) -> float:
        """Standard error of `mean` from the draws, for these very rows."""
        return float(self.error.square().sum().sqrt()) / len(self.gap)

    @property
    def settled(self) -> bool:
        """Whether the second half of the steps, at falling rates, gained next to nothing.

        That is less than a tenth of the mean gap, or than 0.01 nats.
        """
        return float(self.late_gain.mean()) <= max(0.1 * self.mean, 0.01)

    def __str__(self) -> str:
        """Say the mean gap, the largest ones, and whether the refinement has settled."""
        worst = int(self.gap.argmax())
        lines = [
            f"amortization gap {self.mean:.4f} ± {self.mean_error:.4f} nats per row "
            f"({len(self.gap)} rows)",
            f"largest {float(self.gap[worst]):.4f} ± {float(self.error[worst]):.4f} in row {worst}",
        ]
        for name, factor in self.factor.items():
            moved = float(self.shift[name].square().mean().sqrt())
            lines.append(
                f"{name}: locations move by {moved:.3f} standard deviations (root mean square), "
                f"scales by {float(factor.log().mean().exp()):.3f} (geometric mean)"
            )
        if not self.settled:
            lines.append("not settled: the bound still rises; take more steps")
        return "\n".join(lines)


def amortization_gap(
    model: Program,
    guide: Program,
    *args: Any,
    steps: int = 300,
    lr: float = 0.05,
    num_particles: int = 8,
    num_samples: int = 400,
    chunk_size: int = 100,
    seed: int = 0,
    **kwargs: Any,
) -> AmortizationGap:
    r"""Refine the posterior of each row by itself, and say what its bound gains.

    .. math:: q_n(z_i) = \mathrm{Normal}(\mu_i(x_n) + \sigma_i(x_n) d_{ni},
        (\sigma_i(x_n) e^{l_{ni}})^2), \qquad
        \mathrm{gap}_n = \max_{d_n, l_n} \mathrm{ELBO}_n - \mathrm{ELBO}_n |_{d = l = 0}

    The model stays as it is: only the shifts `d` and log factors `l` of each row, unit and step are
    learned, by Adam on a rate that falls to 0, with gradients through draws alone, which have no
    variance at an exact posterior. The gap is then measured on fresh draws, the same for both
    posteriors. What is left of the distance to the evidence is the family's: normal, and
    independent over units.

    Args:
        model: A Pyro program with neurons, called with `args` and `kwargs`, targets included. All
            that is latent stands in its plate of rows.
        guide: Its guide, which takes the posteriors that neurons offer, such as `NeuronGuide`.
        *args: Positional arguments of both.
        steps: Steps of the refinement.
        lr: Learning rate at the start, in standard deviations a step.
        num_particles: Draws of each step.
        num_samples: Fresh draws for the gap, at least 2.
        chunk_size: Fresh draws that are held at once.
        seed: Seed of all draws; the caller's random state is untouched.
        **kwargs: Keyword arguments of both.

    Returns:
        The gap of each row, and how its posterior changed.

    Raises:
        InputError: For rows that share a latent site, a guide that takes no posterior of a neuron,
            one that is neither normal nor a chain, posteriors that are all points, or a model that
            observes nothing.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.testing import ConjugateNeurons
        >>> model = ConjugateNeurons(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> model.set_exact_()
        >>> found = amortization_gap(model, NeuronGuide(model), torch.ones(3, 2), steps=5)
        >>> bool((found.gap.abs() < 1e-3).all())
        True

    Source: Cremer, Li and Duvenaud, *Inference Suboptimality in Variational Autoencoders*, 2018;
    the gradient: Roeder, Wu and Duvenaud, *Sticking the Landing*, 2017.
    """
    check_positive(
        steps=steps, num_particles=num_particles, num_samples=num_samples, chunk_size=chunk_size
    )
    _check_numbers(lr, num_samples)
    give_own_store(model, guide)
    with evaluating(model, guide):
        with own_noise(seed):
            bound = _Bound(model, guide, args, kwargs)
            changes = bound.no_changes()
            halfway = _refine(bound, changes, steps, lr, num_particles)
        found = []
        for used in (bound.no_changes(), halfway, changes):
            with own_noise(seed + _SALT), torch.no_grad():
                found.append(bound.fresh(used, num_samples, chunk_size))
    amortized, half_refined, refined = found
    difference = refined - amortized
    return AmortizationGap(
        gap=difference.mean(dim=0),
        error=difference.std(dim=0) / math.sqrt(num_samples),
        amortized=amortized.mean(dim=0),
        refined=refined.mean(dim=0),
        shift={name: change.shift.detach() for name, change in changes.items()},
        factor={name: change.log_factor.detach().exp() for name, change in changes.items()},
        late_gain=(refined - half_refined).mean(dim=0),
    )


class _Bound:
    """The ELBO of each row under a refined posterior."""

    def __init__(
        self, model: Program, guide: Program, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self.model, self.guide, self.args, self.kwargs = model, guide, args, kwargs
        self.nesting = guess_max_plate_nesting(model, args, kwargs)
        with torch.no_grad():
            run = run_single_pass(model, guide, tuple(args), dict(kwargs))
        self.like = {site.name: site.value for site in run.neurons}
        if not self.like:
            raise InputError(
                "guide",
                expected="one that takes the posteriors that neurons offer",
                got="one in which no layer of neurons runs",
                hint="guide = NeuronGuide(model)",
            )

    def no_changes(self) -> dict[str, Change]:
        """Return changes that leave the amortized posterior as it is."""
        return no_changes(self.like)

    def rows(self, changes: Mapping[str, Change], draws: int) -> Tensor:
        """Return the bound's terms, `(draws, rows)`, with a gradient through the draws alone."""
        with Refinement(changes) as refinement:
            run = run_draws(
                self.model,
                self.guide,
                self.args,
                self.kwargs,
                num_draws=draws,
                nesting=self.nesting,
            )
        found = weigh(run, draws, density=refinement.stopped)
        if found.rows is None:
            raise InputError(
                "model",
                expected="rows that share no latent site",
                got=f"latent sites {[site.name for site in (*run.neurons, *run.others)]}, not all "
                "of them in the plate of the outcome's rows",
                hint="fix what is shared, for example by pyro.poutine.condition",
            )
        return found.rows

    def fresh(self, changes: Mapping[str, Change], num_samples: int, chunk_size: int) -> Tensor:
        """Return the bound's terms of many draws, `(draws, rows)`."""
        sizes = [
            min(chunk_size, num_samples - start) for start in range(0, num_samples, chunk_size)
        ]
        return torch.cat([self.rows(changes, size) for size in sizes])


def _refine(
    bound: _Bound, changes: Mapping[str, Change], steps: int, lr: float, draws: int
) -> dict[str, Change]:
    """Raise the bound of all rows, in place; return the changes halfway."""
    numbers = [number for change in changes.values() for number in change]
    # In units of standard deviations the bound's curvature is about 1: small gradients are followed
    # at half a step of Newton's, where Adam alone would blow rounding up to a direction.
    optimizer = torch.optim.Adam(numbers, lr=lr, betas=(0.9, 0.99), eps=2.0 * lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    halfway: dict[str, Change] = {}
    for step in range(steps):
        if step == steps // 2:
            halfway = {name: change.detached().copied() for name, change in changes.items()}
        # Adam works number by number, so that the sum of rows refines each by itself.
        with torch.enable_grad():
            loss = -bound.rows(changes, draws).mean(dim=0).sum()
        for number, gradient in zip(numbers, _gradients(loss, numbers), strict=True):
            number.grad = gradient
        optimizer.step()
        schedule.step()
    return halfway


def _gradients(loss: Tensor, numbers: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """Return the gradient of each number, None where a layer's posterior is a point."""
    found: Sequence[Tensor | None] = [None]
    if loss.requires_grad:
        found = torch.autograd.grad(loss, numbers, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise InputError(
            "model",
            expected="posteriors that have noise",
            got="points alone",
            hint="refine the model itself, without deterministic",
        )
    return found


def _check_numbers(lr: float, num_samples: int) -> None:
    if not (lr > 0.0 and math.isfinite(lr)):
        raise InputError("lr", expected="a positive number", got=repr(lr), hint="lr=0.05")
    if num_samples < 2:
        raise InputError(
            "num_samples", expected="at least 2", got=str(num_samples), hint="num_samples=400"
        )
