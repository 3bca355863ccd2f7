"""Predicting for a CSV file with a run that was trained: CSV in, CSV out, original units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vdn.datasets.checks import unknown_name
from pyro_vdn.datasets.csvfile import import_pandas, numeric_columns, read_frame
from pyro_vdn.diagnostics import draw_quantiles
from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.infer import predict
from pyro_vdn.train.evaluate import predictive
from pyro_vdn.train.files import replacing
from pyro_vdn.train.problem import Scaling
from pyro_vdn.train.recipes import ForecastingRecipe
from pyro_vdn.train.run_config import RunConfig
from pyro_vdn.train.run_folder import load_model, read_config

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles that are written."""


def predict_file(
    folder: Path, source: Path, output: Path, *, num_samples: int = 1000, seed: int = 0
) -> int:
    """Predict for the rows of a CSV file and write mean, spread and quantiles to another.

    A table needs every feature the run was trained on and gets a row per row. A series needs at
    least `input_length` rows of one or more of the run's channels; its last ones are the window,
    and every channel gets a row per step ahead.

    Args:
        folder: The run's folder.
        source: The file to read, with a header row.
        output: The file to write; must not exist.
        num_samples: Draws behind the quantiles, at least 19.
        seed: Seed of the draws.

    Returns:
        The number of rows written.

    Raises:
        RunFolderError: If the folder holds no run, is damaged, or the output exists.
        InputError: If the file cannot be read, lacks a column, or holds too few rows or values that
            are not finite.
    """
    if output.exists():
        raise RunFolderError(f"{output}: exists, nothing was changed. Try: another --output.")
    config = read_config(folder)
    if not isinstance(config, RunConfig):
        raise InputError(
            str(folder),
            expected="a run of forecasting or regression",
            got=f"one of {config.recipe.task}",
            hint=f"pyro-vdn generate {folder}",
        )
    model, guide = load_model(folder, config)
    is_series = isinstance(config.recipe, ForecastingRecipe)
    x, place, column = (_window if is_series else _features)(source, config)
    pyro.set_rng_seed(seed)
    best = predictive(predict(model, guide, x, num_samples=num_samples, batch_size=256))
    mean, scale = (value[column, None] for value in (config.targets.mean, config.targets.scale))
    columns: dict[str, Tensor] = {
        "mean": best.mean * scale + mean,
        "sd": best.variance.sqrt() * scale,
    }
    quantiles = draw_quantiles(best.draws, LEVELS) * scale + mean
    columns |= {f"q{level:.2f}": value for level, value in zip(LEVELS, quantiles, strict=True)}
    table = _labels(place, x, best.draws.shape[-1], config)
    table |= {name: value.reshape(-1).numpy() for name, value in columns.items()}
    frame = import_pandas().DataFrame(table)
    with replacing(output) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g")
    return len(frame)


def _features(source: Path, config: RunConfig) -> tuple[Tensor, list[str], Tensor]:
    frame = read_frame(source)
    _require(source, config.inputs.names, [str(name) for name in frame.columns])
    names = list(config.inputs.names)
    values = numeric_columns(frame, names, what=str(source), dtype=torch.float32)
    return _standard(values, config.inputs), [], torch.zeros(len(values), dtype=torch.long)


def _window(source: Path, config: RunConfig) -> tuple[Tensor, list[str], Tensor]:
    recipe = config.recipe
    assert isinstance(recipe, ForecastingRecipe)
    frame = read_frame(source)
    present = [str(name) for name in frame.columns]
    names = [name for name in config.inputs.names if name in present]
    if not names:
        _require(source, config.inputs.names[:1], present)
    if len(frame) < recipe.input_length:
        raise InputError(
            str(source),
            expected=f"at least {recipe.input_length} rows, the length of a window",
            got=f"{len(frame)}",
            hint="a longer history",
        )
    column = torch.tensor([config.inputs.names.index(name) for name in names])
    values = numeric_columns(frame, names, what=str(source), dtype=torch.float32)
    window = values[-recipe.input_length :]  # (input_length, channels)
    standard = (window - config.inputs.mean[column]) / config.inputs.scale[column]
    return standard.T.contiguous(), names, column


def _standard(values: Tensor, scaling: Scaling) -> Tensor:
    return (values - scaling.mean) / scaling.scale


def _require(source: Path, names: tuple[str, ...], present: list[str]) -> None:
    for name in names:
        if name not in present:
            raise unknown_name(f"columns of {source}, which need {name!r}", name, present)


def _labels(names: list[str], x: Tensor, outputs: int, config: RunConfig) -> dict[str, Any]:
    """Return the columns that say what each row of the output is about."""
    if not isinstance(config.recipe, ForecastingRecipe):
        return {"row": list(range(len(x)))}
    return {
        "channel": [name for name in names for _ in range(outputs)],
        "step": list(range(1, outputs + 1)) * len(names),
    }
