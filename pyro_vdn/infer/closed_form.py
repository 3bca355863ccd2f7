"""The predictive distribution in closed form, where a model offers it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.infer.evaluating import kept_noise
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.pacm_elbo import integrate_read
from pyro_vdn.infer.plates import holds_sequences
from pyro_vdn.infer.prediction import ClosedForm, check_density_targets, joined_forms
from pyro_vdn.infer.single_pass import Program, run_single_pass
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive, check_rows
from pyro_vdn.nn.sites import MARGINAL

Inputs = Tensor | Sequence[Tensor]


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
                closed_form_of(model, guide, batch, target, num_samples, site)
                for batch, target in batches_of(inputs, y, batch_size)
            ]
        )


def has_closed_form(
    model: Program, guide: Program, inputs: Sequence[Tensor], *, site: str = "y"
) -> bool:
    """Say whether a model offers its predictive distribution in closed form.

    Args:
        model: A Pyro program.
        guide: Its guide.
        inputs: Inputs of some rows to ask it with, each `(rows, ...)`.
        site: Name of the outcome's site.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import DeepRegression, Regression
        >>> x = (torch.zeros(5, 3),)
        >>> models = Regression(3), DeepRegression(3)
        >>> [has_closed_form(model, NeuronGuide(model), x) for model in models]
        [True, False]
    """
    with kept_noise(), torch.no_grad():
        return closed_form_of(model, guide, tuple(inputs), None, 0, site) is not None


def closed_form_of(
    model: Program,
    guide: Program,
    inputs: tuple[Tensor, ...],
    y: Tensor | None,
    num_samples: int,
    site: str,
) -> ClosedForm | None:
    """Take a model's offer of its marginal, where one layer of neurons is all that is random.

    Args:
        model: A Pyro program.
        guide: Its guide.
        inputs: Inputs, each `(rows, ...)`.
        y: Targets, or None.
        num_samples: Draws from it per row.
        site: Name of the outcome's site.

    Returns:
        The predictive distribution of these rows, or None where it is not offered.
    """
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


def batches_of(
    inputs: Sequence[Tensor], y: Tensor | None, batch_size: int
) -> Iterator[tuple[tuple[Tensor, ...], Any]]:
    """Yield inputs and targets, None where there are none, `batch_size` rows at a time.

    Args:
        inputs: Inputs, each `(rows, ...)`.
        y: Targets, or None.
        batch_size: Most rows at once.
    """
    for start in range(0, len(inputs[0]), batch_size):
        rows = slice(start, start + batch_size)
        yield tuple(value[rows] for value in inputs), None if y is None else y[rows]
