"""Latent forecasts: the neurons roll on as their prior says, and the readout reads them."""

from __future__ import annotations

import math

from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.predict import predict
from pyro_vdn.infer.prediction import Prediction
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive, check_shape


def forecast(
    model: Program,
    guide: Program,
    x: Tensor,
    horizon: int,
    *,
    y: Tensor | None = None,
    num_samples: int = 100,
    batch_size: int | None = None,
    site: str = "y",
) -> Prediction:
    r"""Draw the steps after the end of sequences from the posterior predictive distribution.

    The end is that of the tensor: sequences of different lengths are to be filled up with NaN in
    front, so that they end together. Steps without input are appended: there the posterior of the
    neurons is their prior, given the past. From the last posterior, of variance `v_T`, a unit with
    memory `phi` spreads as `phi^{2k} v_T + s^2 (1 - phi^{2k}) / (1 - phi^2)` over k steps; one
    without memory is at its prior at once.

    Args:
        model: A Pyro program that reads NaN as missing, such as `StateSpace`.
        guide: Its guide.
        x: Sequences, `(rows, time, features)`; NaN where a step has no input.
        horizon: Number of steps to forecast, at least 1.
        y: Targets of these steps whose predictive density is wanted, `(rows, horizon, outputs)`.
        num_samples: Number of draws, each a whole trajectory.
        batch_size: Sequences per batch; by default as many as have 1024 steps, and at least 1.
        site: Name of the outcome's site.

    Returns:
        The prediction of the `horizon` steps, with draws `(draws, rows, horizon, outputs)`.

    Raises:
        InputError: For a model that does not read missing steps or predicts the last ones alone, a
            horizon that is not positive, or sequences or targets of another shape.

    Example:
        >>> import torch
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import StateSpace
        >>> model = StateSpace(3, 2)
        >>> ahead = forecast(model, NeuronGuide(model), torch.randn(5, 20, 3), 4, num_samples=7)
        >>> ahead.draws.shape, ahead.mean.shape
        (torch.Size([7, 5, 4, 2]), torch.Size([5, 4, 2]))
    """
    check_positive(horizon=horizon)
    _check_model(model)
    _check_sequences(x, horizon, y)
    longer = _with_steps(x, after=horizon)
    prediction = predict(
        model,
        guide,
        longer,
        # The past has no targets: the density is that of the horizon.
        y=None if y is None else _with_steps(y, before=x.shape[1]),
        num_samples=num_samples,
        batch_size=max(1, 1024 // longer.shape[1]) if batch_size is None else batch_size,
        site=site,
    )
    if prediction.draws.shape[2] < horizon:
        raise InputError(
            "model",
            expected=f"one that predicts the last {horizon} steps of its sequences",
            got=f"the last {prediction.draws.shape[2]}",
            hint=f"Forecaster(..., scored_steps={horizon}) or None",
        )
    per_output = prediction.log_prob_per_output
    return Prediction(
        prediction.draws[:, :, -horizon:],
        None if per_output is None else per_output[:, -horizon:],
        prediction.log_prob_joint,
    )


def _check_model(model: Program) -> None:
    if not reads_missing(model):
        raise InputError(
            "model",
            expected="one that reads NaN as missing, and says so by `reads_missing = True`",
            got=type(model).__name__,
            hint="pyro_vdn.models.StateSpace(num_features)",
        )


def _check_sequences(x: Tensor, horizon: int, y: Tensor | None) -> None:
    if not isinstance(x, Tensor) or x.dim() != 3:
        raise InputError(
            "x",
            expected="sequences of shape (rows, time, features)",
            got=f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__,
            hint="`x.unsqueeze(0)` for a single sequence",
        )
    if y is not None:
        hint = "the targets of the steps after the end of x"
        outputs = y.shape[2:] if y.dim() == 3 else (1,)
        check_shape("y", y, (len(x), horizon, *outputs), hint=hint)


def _with_steps(values: Tensor, *, before: int = 0, after: int = 0) -> Tensor:
    """Return sequences `(rows, time, ...)` with missing steps before and after them."""
    rows, steps, *rest = values.shape
    longer = values.new_full((rows, before + steps + after, *rest), math.nan)
    longer[:, before : before + steps] = values
    return longer
