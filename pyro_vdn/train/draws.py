"""The draws of a run as ArviZ data: neurons, outcomes, densities, and what was observed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.poutine
import torch
from torch import Tensor

from pyro_vdn.diagnostics import ArviZData, UnitStatistics, arrays_to_arviz
from pyro_vdn.infer import predict
from pyro_vdn.infer.plates import guess_max_plate_nesting
from pyro_vdn.nn.sites import DRAWS, is_neuron, layer_of
from pyro_vdn.train.evaluate import predictive
from pyro_vdn.train.problem import Problem
from pyro_vdn.train.recipes import ForecastingRecipe

Program = Callable[..., Any]


def draws_to_arviz(
    model: Program,
    guide: Program,
    problem: Problem,
    layers: Mapping[str, UnitStatistics],
    rows: Tensor,
    *,
    num_samples: int = 200,
    site: str = "y",
) -> ArviZData:
    """Draw neurons and outcomes of some test rows and put them into ArviZ data.

    Args:
        model: The program.
        guide: Its guide.
        problem: The data; values are stored in standard units, with the way back.
        layers: Unit statistics over all test rows, by layer path.
        rows: Which test rows, `(rows,)`.
        num_samples: Draws.
        site: Name of the outcome's site.

    Returns:
        ArviZ data with the groups ``posterior`` (draws of the neurons given x, by site name),
        ``posterior_predictive`` (from the same draws of the neurons), ``log_likelihood``
        (conditional on the neurons, each row's outputs together), ``observed_data``,
        ``constant_data``, ``predictive_density`` (neurons integrated out) and ``unit_stats``.
    """
    x, y = problem.test[0][rows], problem.test[1][rows]
    neurons, outcome, log_likelihood = _sample(model, guide, x, y, num_samples, site)
    density = predict(model, guide, x, y=y, num_samples=num_samples)
    best = predictive(density)
    names = _names(problem)
    unit_of = {layer_of(name): f"{name.removesuffix('z')}unit" for name in neurons}
    if len(unit_of) == 1:
        unit_of = dict.fromkeys(unit_of, "unit")
    dims: dict[str, list[str]] = {name: ["row", unit_of[layer_of(name)]] for name in neurons}
    dims |= {site: ["row", names["output"]], "x": ["row", names["input"]]}
    dims |= {name: ["row"] for name in ("log_density", "log_density_joint", "target_mean")}
    dims |= {"target_scale": ["row"], "log_density": ["row", names["output"]]}
    statistics: dict[str, Any] = {}
    for path, units in layers.items():
        for name, values in units.to_arrays().items():
            key = f"{path}.{name}" if path else name
            statistics[key] = values
            dims[key] = [unit_of[path]]
    groups: dict[str, dict[str, Any]] = {
        "posterior": dict(neurons),
        "posterior_predictive": {site: outcome},
        "log_likelihood": {site: log_likelihood},
        "observed_data": {site: y},
        "constant_data": {
            "x": x,
            "target_mean": problem.targets.mean[problem.column[rows]],
            "target_scale": problem.targets.scale[problem.column[rows]],
        },
        "predictive_density": {
            "log_density": best.log_prob_per_output,
            "log_density_joint": best.log_prob_joint,
        },
        "unit_stats": statistics,
    }
    return _to_arviz(problem, groups, dims, rows, names, site)


def _to_arviz(
    problem: Problem,
    groups: dict[str, dict[str, Any]],
    dims: dict[str, list[str]],
    rows: Tensor,
    names: dict[str, str],
    site: str,
) -> ArviZData:
    outputs = problem.test[1].shape[-1]
    coords: dict[str, Any] = {"row": [problem.labels[row] for row in rows.tolist()]}
    if names["output"] == "step":
        coords["step"] = list(range(1, outputs + 1))
        coords["lag"] = list(range(1 - problem.test[0].shape[-1], 1))
    else:
        coords["target"] = list(problem.targets.names)
        coords["feature"] = list(problem.inputs.names)
    # The log-likelihood is one number a row: `site` has another meaning in that group.
    likelihood = groups.pop("log_likelihood")
    groups["log_likelihood"] = {f"{site}_row": likelihood[site]}
    dims = {**dims, f"{site}_row": ["row"]}
    attrs: dict[str, Any] = {
        "units": "standard units; target_mean + target_scale * value gives the original ones",
        "data": problem.source.name,
        "log_likelihood": {
            "meaning": "conditional: log p(y | z) of a row's outputs together, z as drawn",
            "caution": "one latent vector per row: PSIS-LOO on it is unreliable",
        },
        "predictive_density": {"meaning": "marginal: log p(y | x) with the neurons integrated out"},
        "unit_stats": {"meaning": "averages over all test rows reported on"},
    }
    groups = {name: variables for name, variables in groups.items() if variables}
    attrs = {k: v for k, v in attrs.items() if not isinstance(v, dict) or k in groups}
    used = {name for variables in groups.values() for name in variables}
    return arrays_to_arviz(
        groups, dims={k: v for k, v in dims.items() if k in used}, coords=coords, attrs=attrs
    )


def _sample(
    model: Program, guide: Program, x: Tensor, y: Tensor, num_samples: int, site: str
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Draw all latents and the outcome at once; return neurons, outcome and log p(y | z)."""
    with torch.no_grad():
        dim = -1 - guess_max_plate_nesting(model, (x,))
        with pyro.plate(DRAWS, num_samples, dim=dim):
            drawn = pyro.poutine.trace(guide).get_trace(x)
            trace = pyro.poutine.trace(pyro.poutine.replay(model, trace=drawn)).get_trace(x)
        outcome = trace.nodes[site]
        fn, value = outcome["fn"], outcome["value"]
        if fn.event_dim:
            log_likelihood = fn.log_prob(y.unsqueeze(-2)).squeeze(-1)
            value = value.squeeze(-2)
        else:
            log_likelihood = fn.log_prob(y).sum(-1)
    neurons = {
        name: node["value"].flatten(start_dim=3) if node["value"].dim() > 3 else node["value"]
        for name, node in drawn.nodes.items()
        if is_neuron(node)
    }
    return neurons, value, log_likelihood


def _names(problem: Problem) -> dict[str, str]:
    is_series = isinstance(problem.recipe, ForecastingRecipe)
    return (
        {"output": "step", "input": "lag"}
        if is_series
        else {"output": "target", "input": "feature"}
    )
