"""Posterior prediction: draws, densities, quantiles and moments for new rows or sequences.

The first dimension of inputs and targets is that of rows; a row of inputs or targets may itself be
a sequence of steps. The plate of rows is the outermost one of the outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.pacm_elbo import integrate_read
from pyro_vdn.infer.plates import guess_max_plate_nesting, holds_sequences
from pyro_vdn.infer.prediction import (
    ClosedForm,
    Prediction,
    cat,
    check_density_targets,
    check_outcome_rows,
    joined,
    joined_forms,
    mixture_log_probs,
)
from pyro_vdn.infer.single_pass import Program, run_single_pass
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive, check_rows
from pyro_vdn.nn.sites import DRAWS, MARGINAL

Inputs = Tensor | Sequence[Tensor]


def predict(
    model: Program,
    guide: Program,
    x: Inputs,
    *,
    y: Tensor | None = None,
    num_samples: int = 100,
    batch_size: int = 1024,
    site: str = "y",
) -> Prediction:
    """Draw from the posterior predictive distribution of new rows or sequences.

    Rows are drawn batch by batch, without gradients. Works for any guide. The model is called as
    ``model(*x)``, without its observation.

    Args:
        model: A Pyro program whose outcome has batch shape `(rows, outputs)` or, for sequences,
            `(rows, time, outputs)`. One with ``reads_missing = True`` may be given NaN.
        guide: Its guide.
        x: Inputs, `(rows, ...)`, or several of them with the same number of rows.
        y: Targets whose predictive density is wanted, `(rows, outputs)` or `(rows, time, outputs)`;
            what is NaN is left out of the density.
        num_samples: Number S of draws, at least 1.
        batch_size: Rows per batch, at least 1: all their draws and steps are held at once.
        site: Name of the outcome's site.

    Returns:
        The prediction, with tensors on the device of the inputs.

    Raises:
        InputError: For inputs of unequal or zero rows, values that are not finite (NaN where the
            model reads it), targets of the wrong shape, an unknown site, or one without rows.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model, x, y = Regression(3), torch.zeros(5, 3), torch.zeros(5, 1)
        >>> prediction = predict(model, NeuronGuide(model), x, y=y, num_samples=7)
        >>> prediction.draws.shape
        torch.Size([7, 5, 1])
        >>> prediction.log_prob_per_output.shape, prediction.log_prob_joint.shape
        (torch.Size([5, 1]), torch.Size([5]))
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    check_positive(num_samples=num_samples, batch_size=batch_size)
    check_rows(inputs, y, missing_allowed=reads_missing(model))
    give_own_store(model, guide)
    shared = Trace()
    with torch.no_grad():
        batches = [
            _predict_batch(model, guide, batch, target, num_samples, site, shared)
            for batch, target in _batches(inputs, y, batch_size)
        ]
    return joined(batches)


def predict_closed_form(
    model: Program,
    guide: Program,
    x: Inputs,
    *,
    y: Tensor | None = None,
    num_samples: int = 100,
    batch_size: int = 1024,
    site: str = "y",
) -> ClosedForm | None:
    """Return the predictive distribution in closed form alone, without running draws of the model.

    Args:
        model: A Pyro program with rows at dim -2.
        guide: Its guide.
        x: Inputs, `(rows, ...)`, or several of them.
        y: Targets whose predictive density is wanted, `(rows, outputs)`.
        num_samples: Draws from it per row.
        batch_size: Rows per batch.
        site: Name of the outcome's site.

    Returns:
        The distribution, or None where the model does not offer it, more than one layer of neurons
        is random, or rows are sequences, whose steps depend on each other.

    Raises:
        InputError: As `predict` does.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> form = predict_closed_form(model, NeuronGuide(model), torch.zeros(5, 3), num_samples=7)
        >>> form.mean.shape, form.draws.shape
        (torch.Size([5, 1]), torch.Size([7, 5, 1]))
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    check_positive(num_samples=num_samples, batch_size=batch_size)
    check_rows(inputs, y, missing_allowed=reads_missing(model))
    give_own_store(model, guide)
    with torch.no_grad():
        return joined_forms(
            [
                _closed_form(model, guide, batch, target, num_samples, site)
                for batch, target in _batches(inputs, y, batch_size)
            ]
        )


def log_density(
    model: Program,
    guide: Program,
    x: Inputs,
    y: Tensor,
    *,
    num_samples: int = 32,
    batch_size: int = 1024,
    site: str = "y",
) -> tuple[Tensor | None, Tensor]:
    """Return the log predictive density of targets, per output and joint.

    It is in closed form where the model offers one, else that of the mixture over draws.

    Args:
        model: A Pyro program with rows at dim -2.
        guide: Its guide.
        x: Inputs, `(rows, ...)`, or several of them.
        y: Targets, `(rows, outputs)` or `(rows, time, outputs)`.
        num_samples: Number of draws where there is no closed form.
        batch_size: Rows per batch.
        site: Name of the outcome's site.

    Returns:
        Densities of the shape of the targets, NaN where they are, or None where a joint
        distribution does not know its marginals; and `(rows,)`.

    Raises:
        InputError: As `predict` does.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model, x, y = Regression(3), torch.zeros(5, 3), torch.zeros(5, 1)
        >>> per_output, joint = log_density(model, NeuronGuide(model), x, y)
        >>> torch.allclose(per_output[:, 0], joint)
        True
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    check_positive(num_samples=num_samples, batch_size=batch_size)
    check_rows(inputs, y, missing_allowed=reads_missing(model))
    give_own_store(model, guide)
    densities, shared = [], Trace()
    with torch.no_grad():
        for batch, target in _batches(inputs, y, batch_size):
            form = _closed_form(model, guide, batch, target, 0, site)
            if form is not None:
                densities.append((form.log_prob_per_output, form.log_prob_joint))
            else:
                outcome = _outcome(model, guide, batch, num_samples, site, shared)
                densities.append(mixture_log_probs(outcome["fn"], target))
    per_output, joint = zip(*densities, strict=True)
    return cat(list(per_output)), torch.cat(joint)


def _batches(
    inputs: Sequence[Tensor], y: Tensor | None, batch_size: int
) -> Iterator[tuple[tuple[Tensor, ...], Any]]:
    for start in range(0, len(inputs[0]), batch_size):
        rows = slice(start, start + batch_size)
        yield tuple(value[rows] for value in inputs), None if y is None else y[rows]


def _predict_batch(
    model: Program,
    guide: Program,
    inputs: tuple[Tensor, ...],
    y: Tensor | None,
    num_samples: int,
    site: str,
    shared: Trace,
) -> Prediction:
    outcome = _outcome(model, guide, inputs, num_samples, site, shared)
    draws = _outputs_last(outcome["value"], outcome["fn"])
    closed_form = _closed_form(model, guide, inputs, y, num_samples, site)
    if y is None:
        return Prediction(draws, closed_form=closed_form)
    per_output, joint = mixture_log_probs(outcome["fn"], y)
    return Prediction(draws, per_output, joint, closed_form)


def _outcome(
    model: Program,
    guide: Program,
    inputs: tuple[Tensor, ...],
    num_samples: int,
    site: str,
    shared: Trace,
) -> dict[str, Any]:
    """Run guide and model for all draws at once and return the outcome's site.

    Draws are the outcome's first dimension and rows the second. Latent sites outside of the plate
    of rows go into `shared`, or come from it where it holds them.
    """
    dim = -1 - guess_max_plate_nesting(model, inputs)
    with pyro.plate(DRAWS, num_samples, dim=dim):
        with pyro.poutine.replay(trace=shared):
            guide_trace = pyro.poutine.trace(guide).get_trace(*inputs)
        replayed = pyro.poutine.replay(model, trace=guide_trace)
        trace = pyro.poutine.trace(replayed).get_trace(*inputs)
    if site not in trace.nodes:
        raise InputError(
            "site", expected=f"one of {trace.stochastic_nodes}", got=repr(site), hint="site='y'"
        )
    outcome: dict[str, Any] = trace.nodes[site]
    check_outcome_rows(site, outcome["fn"].batch_shape, len(inputs[0]))
    for name in guide_trace.stochastic_nodes:
        node = guide_trace.nodes[name]
        in_rows = any(frame.dim == dim + 1 for frame in node["cond_indep_stack"])
        if not in_rows and not site_is_subsample(node):
            shared.nodes[name] = node
    return outcome


def _closed_form(
    model: Program,
    guide: Program,
    inputs: tuple[Tensor, ...],
    y: Tensor | None,
    num_samples: int,
    site: str,
) -> ClosedForm | None:
    """Take a model's offer of its marginal, where one layer of neurons is all that is random."""
    run = run_single_pass(model, guide, inputs, {})
    random = [other for other in (*run.others, *run.observed) if not other.is_fixed]
    outcome = next((other for other in random if other.name == site), None)
    if outcome is None or MARGINAL not in outcome.infer or len(run.neurons) + len(random) != 2:
        return None
    if holds_sequences(outcome.plates):
        return None
    integrated = integrate_read(run, outcome)
    if integrated is None:
        return None
    if y is not None:
        check_density_targets(y, integrated.mean.shape)
    joint = integrated.joint()
    draws = joint.sample((num_samples,))
    if y is None:
        return ClosedForm(integrated.mean, integrated.variance, draws)
    per_output = integrated.per_output().log_prob(y)
    return ClosedForm(integrated.mean, integrated.variance, draws, per_output, joint.log_prob(y))


def _outputs_last(values: Tensor, distribution: dist.Distribution) -> Tensor:
    """Drop the dimension of size 1 that keeps the place of outputs which are an event."""
    return values.squeeze(-2) if distribution.event_dim else values
