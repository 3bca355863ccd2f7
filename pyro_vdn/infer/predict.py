"""Posterior prediction: draws, densities, quantiles and moments for new rows or sequences.

The first dimension of inputs and targets is that of rows; a row of inputs or targets may itself be
a sequence of steps. The plate of rows is the outermost one of the outcome.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_vdn.infer.closed_form import Inputs, batches_of, closed_form_of
from pyro_vdn.infer.joint_draws import Look, chunks_of_draws, draw_jointly, look_at
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.prediction import (
    Prediction,
    joined,
    mixture_log_probs,
)
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive, check_rows


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
    look, shared = look_at(model, inputs), Trace()
    with torch.no_grad():
        batches = [
            _predict_batch(model, guide, batch, target, num_samples, site, look, shared)
            for batch, target in batches_of(inputs, y, batch_size)
        ]
    return joined(batches)


def draw_outcomes(
    model: Program,
    guide: Program,
    x: Inputs,
    num_samples: int,
    *,
    batch_size: int = 1024,
    site: str = "y",
) -> Tensor:
    """Draw from the posterior predictive distribution, and nothing more than that.

    The draws of `predict` without its densities and closed form, a bounded number at once.

    Args:
        model: As for `predict`.
        guide: Its guide.
        x: Inputs, `(rows, ...)`, or several of them.
        num_samples: Number of draws, at least 1.
        batch_size: Most rows at once.
        site: Name of the outcome's site.

    Returns:
        Draws, `(draws, rows, outputs)` or `(draws, rows, time, outputs)`.

    Raises:
        InputError: As `predict` does.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model, x = Regression(3), torch.zeros(5, 3)
        >>> draw_outcomes(model, NeuronGuide(model), x, 7).shape
        torch.Size([7, 5, 1])
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    check_positive(num_samples=num_samples, batch_size=batch_size)
    check_rows(inputs, None, missing_allowed=reads_missing(model))
    give_own_store(model, guide)
    draws = torch.empty(0)
    with torch.no_grad():
        for some, rows, values in chunks_of_draws(
            model, guide, inputs, num_samples, batch_size=batch_size, site=site
        ):
            part = _outputs_last(values.outcome["value"], values.outcome["fn"])
            if not len(draws):
                draws = part.new_empty((num_samples, len(inputs[0]), *part.shape[2:]))
            draws[some, rows] = part
    return draws


def _predict_batch(
    model: Program,
    guide: Program,
    inputs: tuple[Tensor, ...],
    y: Tensor | None,
    num_samples: int,
    site: str,
    look: Look,
    shared: Trace,
) -> Prediction:
    drawn = draw_jointly(model, guide, inputs, num_samples, site=site, shared=shared, look=look)
    outcome = drawn.outcome
    draws = _outputs_last(outcome["value"], outcome["fn"])
    closed_form = closed_form_of(model, guide, inputs, y, num_samples, site)
    if y is None:
        return Prediction(draws, closed_form=closed_form)
    per_output, joint = mixture_log_probs(outcome["fn"], y)
    return Prediction(draws, per_output, joint, closed_form)


def _outputs_last(values: Tensor, distribution: dist.Distribution) -> Tensor:
    """Drop the dimension of size 1 that keeps the place of outputs which are an event."""
    return values.squeeze(-2) if distribution.event_dim else values
