"""Scores of a fitted model on rows it has not seen, batch by batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.diagnostics import UnitStatistics
from pyro_vdn.diagnostics.units.measure import random_layers
from pyro_vdn.errors import InputError
from pyro_vdn.infer import ClosedForm, Prediction, pooled, predict, predict_closed_form
from pyro_vdn.infer.evaluating import evaluating
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive, check_rows
from pyro_vdn.poutine import record
from pyro_vdn.train.parameters import count_parameters
from pyro_vdn.train.row_scores import RowScores

Program = Callable[..., Any]


@dataclass(frozen=True)
class Metrics:
    r"""Scores of a predictive distribution in the units of the targets.

    All are of one distribution: the closed form where the model offers it, else the mixture of
    draws of the program. Targets that are missing count in none of them.

    Args:
        mse: Mean squared error of the predictive mean.
        mae: Mean absolute error of the predictive median, taken from draws.
        nll: Mean negative log predictive density of each output by itself, in nats.
        joint_nll: Negative log predictive density of all outputs (and steps) of a row together, per
            output (and step) observed.
        crps: Continuous ranked probability score, fair (unbiased for finitely many draws).
        coverage_90: Share of targets inside the central 90 % interval of the draws.
        energy_score: Energy score of whole rows, fair; it grows like the root of their length.
        kl_per_unit: Mean KL from posterior to prior per row and unit, in nats; None where the
            neurons are no distributions, as in the deterministic twin.
        active_share: Share of units whose mean KL exceeds 1e-4 nat; None as above.
        parameters: Number of parameters that take part in the predictive density.
        seconds: Wall time of the evaluation.

    Example:
        >>> Metrics(0.1, 0.2, 0.3, 0.3, 0.1, 0.9, 0.1, None, None, 10, 1.0).coverage_90
        0.9
    """

    mse: float
    mae: float
    nll: float
    joint_nll: float
    crps: float
    coverage_90: float
    energy_score: float
    kl_per_unit: float | None
    active_share: float | None
    parameters: int
    seconds: float

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the scores by name, ready for JSON: what is not finite becomes None."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {k: v if v is None or math.isfinite(v) else None for k, v in values.items()}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores together with what pictures of them need.

    Args:
        metrics: The scores.
        pit: Probability integral transforms of the targets' shape, NaN where one is missing.
        layers: Statistics of the units of every layer by path; empty for the deterministic twin.
        rows: Scores of every row, for intervals and paired differences; NaN for what is missing:
            ``"nll"`` and ``"crps"`` of each output, of the targets' shape; ``"joint_nll"``, in nats
            of all outputs of a row together, and ``"energy_score"``, `(rows,)`.
        standard_errors: Of some of the scores, over what is independent; empty where not known.

    Example:
        >>> metrics = Metrics(0.1, 0.2, 0.3, 0.3, 0.1, 0.9, 0.1, None, None, 10, 1.0)
        >>> Evaluation(metrics, torch.rand(5, 1), {}).pit.shape
        torch.Size([5, 1])
    """

    metrics: Metrics
    pit: Tensor
    layers: dict[str, UnitStatistics]
    rows: dict[str, Tensor] = field(default_factory=dict)
    standard_errors: dict[str, float] = field(default_factory=dict)


def evaluate(
    model: Program,
    guide: Program,
    x: Tensor,
    y: Tensor,
    *,
    num_samples: int = 100,
    batch_size: int = 1024,
) -> Metrics:
    """Score the posterior predictive distribution of rows, streaming over batches.

    Only a batch of draws is held at a time, so memory does not grow with the number of rows. The
    global random state moves on; seed it for the same figures again.

    Args:
        model: A Pyro program, called as ``model(x)``, with an outcome of batch shape
            `(rows, outputs)` or `(rows, time, outputs)`.
        guide: Its guide.
        x: Inputs, `(rows, ...)`.
        y: Targets, `(rows, outputs)` or `(rows, time, outputs)`, in standard units where scores are
            to be compared; NaN where one is missing, if the model reads that.
        num_samples: Draws per row, at least 19 for a 90 % interval.
        batch_size: Rows per batch, all of whose steps are held at once.

    Returns:
        The scores.

    Raises:
        InputError: For rows that do not fit together, values that are not finite, or too few draws.

    Example:
        >>> import pyro
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> _ = pyro.set_rng_seed(0)
        >>> model = Regression(3)
        >>> metrics = evaluate(model, NeuronGuide(model), torch.randn(50, 3), torch.randn(50, 1))
        >>> metrics.active_share, metrics.parameters
        (1.0, 303)
    """
    fully = evaluate_fully(model, guide, x, y, num_samples=num_samples, batch_size=batch_size)
    return fully.metrics


def evaluate_fully(
    model: Program,
    guide: Program,
    x: Tensor,
    y: Tensor,
    *,
    num_samples: int = 100,
    batch_size: int = 1024,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Evaluation:
    """Score as `evaluate` does, and return what calibration and activity pictures need.

    Args:
        model: A Pyro program.
        guide: Its guide.
        x: Inputs, `(rows, ...)`.
        y: Targets, `(rows, outputs)`.
        num_samples: Draws per row.
        batch_size: Rows per batch.
        on_batch: Called with the number of rows of every batch that is done.

    Returns:
        Scores, transforms and unit statistics.

    Raises:
        InputError: As for `evaluate`.
    """
    fitted = [(model, guide)]
    return evaluate_pooled(
        fitted, x, y, num_samples=num_samples, batch_size=batch_size, on_batch=on_batch
    )


def evaluate_pooled(
    fitted: Sequence[tuple[Program, Program]],
    x: Tensor,
    y: Tensor,
    *,
    num_samples: int = 100,
    batch_size: int = 1024,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> Evaluation:
    r"""Score an ensemble as `evaluate_fully` scores one model.

    Its predictive density is the mixture of its M members' in equal shares,
    `p(y) = 1/M sum_m p_m(y)`. Only a batch of draws is held at a time.

    Args:
        fitted: Programs with their guides, at least one.
        x: Inputs, `(rows, ...)`.
        y: Targets, `(rows, outputs)`.
        num_samples: Draws per row of all members together, in equal shares.
        batch_size: Rows per batch.
        on_batch: Called with the number of rows of every batch that is done.

    Returns:
        Scores and transforms; unit statistics of a single model.

    Raises:
        InputError: As for `evaluate`, and for no models.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> fitted = [(model, NeuronGuide(model)) for model in (Regression(3), Regression(3))]
        >>> found = evaluate_pooled(fitted, torch.randn(50, 3), torch.randn(50, 1))
        >>> found.metrics.parameters, found.rows["nll"].shape
        (606, torch.Size([50, 1]))
    """
    check_positive(num_samples=num_samples, batch_size=batch_size)
    if not fitted:
        raise InputError(
            "fitted", expected="at least one model", got="none", hint="[(model, guide)]"
        )
    check_rows((x,), y, missing_allowed=all(reads_missing(model) for model, _ in fitted))
    for model, guide in fitted:
        give_own_store(model, guide)
    began = time.perf_counter()
    scores = RowScores()
    each = math.ceil(num_samples / len(fitted))
    with evaluating(*(program for pair in fitted for program in pair)):
        layers = _layers(*fitted[0], x, batch_size) if len(fitted) == 1 else {}
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            found = [_predict(model, guide, x[rows], y[rows], each) for model, guide in fitted]
            scores.add(_pooled(found), y[rows])
            on_batch(len(y[rows]))
        few = x[:2], y[:2]
        parameters = sum(count_parameters(model, guide, few) for model, guide in fitted)
    kl = torch.cat([torch.as_tensor(layer.kl) for layer in layers.values()]) if layers else None
    active = torch.cat([torch.as_tensor(a.active) for a in layers.values()]) if layers else None
    metrics = Metrics(
        **scores.means(),
        kl_per_unit=None if kl is None else float(kl.mean()),
        active_share=None if active is None else float(active.double().mean()),
        parameters=parameters,
        seconds=time.perf_counter() - began,
    )
    return Evaluation(metrics, scores.transforms(), layers, scores.rows())


def _layers(
    model: Program, guide: Program, x: Tensor, batch_size: int
) -> dict[str, UnitStatistics]:
    """Return what the units of every random layer do, from one pass over all rows."""
    with torch.no_grad(), record() as seen:
        for start in range(0, len(x), batch_size):
            guide(x[start : start + batch_size])
    return {path: UnitStatistics.of(layer) for path, layer in random_layers(seen).items()}


def _predict(
    model: Program, guide: Program, x: Tensor, y: Tensor, num_samples: int
) -> Prediction | ClosedForm:
    """Return what `predictive` would, without draws of the program where they are not needed."""
    form = predict_closed_form(model, guide, x, y=y, num_samples=num_samples, batch_size=len(x))
    if form is not None:
        return form
    return predict(model, guide, x, y=y, num_samples=num_samples, batch_size=len(x))


def _pooled(found: Sequence[Prediction | ClosedForm]) -> Prediction | ClosedForm:
    """Return the mixture in equal shares, in closed form where all are."""
    if len(found) == 1:
        return found[0]
    return predictive(pooled([as_prediction(one) for one in found]))


def as_prediction(found: Prediction | ClosedForm) -> Prediction:
    """Return a predictive distribution as one that `pooled` takes, closed forms as they are.

    Args:
        found: What `predictive` returned.
    """
    if isinstance(found, Prediction):
        return found
    return Prediction(found.draws, found.log_prob_per_output, found.log_prob_joint, found)


def predictive(prediction: Prediction) -> Prediction | ClosedForm:
    """Return one predictive distribution for all scores: the closed form where there is one."""
    return prediction.closed_form or prediction
