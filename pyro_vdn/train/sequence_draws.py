"""The draws of sequences as ArviZ data: neurons and outcomes by row, time and unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.poutine
import torch
from numpy.typing import ArrayLike
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vdn.diagnostics import ArviZData, arrays_to_arviz
from pyro_vdn.errors import InputError
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.plates import guess_max_plate_nesting
from pyro_vdn.nn.observed import observed_values, reads_missing
from pyro_vdn.nn.shapes import check_positive, check_rows
from pyro_vdn.nn.sites import DRAWS, is_neuron, latent_site, layer_of

Program = Callable[..., Any]


def sequences_to_arviz(
    model: Program,
    guide: Program,
    x: Tensor,
    y: Tensor | None = None,
    *,
    num_samples: int = 200,
    coords: Mapping[str, ArrayLike] | None = None,
    site: str = "y",
) -> ArviZData:
    """Draw the neurons and outcomes of sequences and put them into ArviZ data.

    All sequences are drawn at once: hand in the few to look at.

    Args:
        model: A Pyro program of sequences, such as `StateSpace`.
        guide: Its guide.
        x: Sequences, `(rows, time, features)`.
        y: Their targets, `(rows, time, outputs)`, NaN where one is missing; or None.
        num_samples: Number of draws.
        coords: Labels of the dimensions ``row``, ``time``, ``unit`` (``<layer>.unit`` where there
            are several layers of neurons), ``feature`` and ``output``.
        site: Name of the outcome's site.

    Returns:
        ArviZ data with the groups ``posterior`` (neurons, `(row, time, unit)`, by the name of their
        site, and hyperparameters with a hyper-prior, `(unit)`), ``posterior_predictive`` from the
        same draws, ``constant_data`` (the inputs) and, with targets, ``log_likelihood`` (of each
        target given the neurons, NaN where it is missing) and ``observed_data``.

    Raises:
        InputError: For sequences or targets that are not finite (NaN where the model reads it), a
            site that is not in the model, or one whose outcomes are not sequences.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import StateSpace
        >>> model = StateSpace(3, num_units=2)
        >>> data = sequences_to_arviz(model, NeuronGuide(model), torch.zeros(5, 10, 3))
        >>> data["posterior"]["neurons.z"].dims
        ('chain', 'draw', 'row', 'time', 'unit')
    """
    check_positive(num_samples=num_samples)
    check_rows((x,), y, missing_allowed=reads_missing(model))
    give_own_store(model, guide)
    drawn, outcome = _sample(model, guide, x, num_samples, site)
    layers = _by_layer(drawn)
    units = {path: "unit" if len(layers) == 1 else f"{path}.unit" for path in layers}
    dims = {latent_site(path): _neuron_dims(units[path], z) for path, z in layers.items()}
    posterior = {latent_site(path): z for path, z in layers.items()}
    for name, value in _global(drawn, site).items():
        posterior[name] = value
        owner = next((path for path in layers if name.startswith(f"{path}.")), None)
        if owner is not None and value.dim() > 1:
            dims[name] = [units[owner], "lag"][: value.dim() - 1]
    groups: dict[str, dict[str, Any]] = {
        "posterior": posterior,
        "posterior_predictive": {site: _outputs_last(outcome)},
        "constant_data": {"x": x},
    }
    scored = groups["posterior_predictive"][site].shape[2]
    time = "time" if scored == x.shape[1] else "scored_time"
    dims |= {site: ["row", time, "output"], "x": ["row", "time", "feature"]}
    if y is not None:
        groups["observed_data"] = {site: y}
        groups["log_likelihood"] = {site: _log_prob(outcome["fn"], y)}
    return arrays_to_arviz(groups, dims=dims, coords=coords)


def _outputs_last(outcome: dict[str, Any]) -> Tensor:
    """Return draws `(draws, rows, time, outputs)`, also of outputs that are the event."""
    value: Tensor = outcome["value"]
    return value.squeeze(-2) if outcome["fn"].event_dim else value


def _sample(
    model: Program, guide: Program, x: Tensor, num_samples: int, site: str
) -> tuple[Trace, dict[str, Any]]:
    """Return the trace of the guide for all draws at once, and the outcome that follows from it."""
    with torch.no_grad():
        dim = -1 - guess_max_plate_nesting(model, (x,))
        with pyro.plate(DRAWS, num_samples, dim=dim):
            drawn = pyro.poutine.trace(guide).get_trace(x)
            trace = pyro.poutine.trace(pyro.poutine.replay(model, trace=drawn)).get_trace(x)
    if site not in trace.nodes:
        raise InputError(
            "site", expected=f"one of {trace.stochastic_nodes}", got=repr(site), hint="site='y'"
        )
    outcome: dict[str, Any] = trace.nodes[site]
    if tuple(outcome["value"].shape[:2]) != (num_samples, len(x)) or dim != -4:
        raise InputError(
            f"site '{site}'",
            expected=f"outcomes of shape {(*x.shape[:2], 'outputs')}, a sequence each row",
            got=f"shape {tuple(outcome['value'].shape[1:])}",
            hint="`predict` and `to_arviz` for rows that are no sequences",
        )
    return drawn, outcome


def _by_layer(drawn: Trace) -> dict[str, Tensor]:
    """Return the neurons of each layer, `(draws, rows, time, units)`."""
    steps: dict[str, list[Tensor]] = {}
    for name, node in drawn.nodes.items():
        if is_neuron(node):
            steps.setdefault(layer_of(name), []).append(node["value"])
    # A `pyro.markov` loop has a site per step.
    return {path: torch.cat(values, 2) for path, values in steps.items()}


def _neuron_dims(unit: str, z: Tensor) -> list[str]:
    return ["row", "time", unit, f"{unit}_latent"][: z.dim() - 1]


def _global(drawn: Trace, site: str) -> dict[str, Tensor]:
    """Return the draws of other latent sites, without the places of plates they are not in."""
    return {
        name: node["value"].squeeze(_unused(node))
        for name, node in drawn.nodes.items()
        if name in drawn.stochastic_nodes
        and name != site
        and not (is_neuron(node) or site_is_subsample(node) or node["infer"].get("is_auxiliary"))
    }


def _unused(node: dict[str, Any]) -> tuple[int, ...]:
    """Return which of the dimensions of rows, time and units belong to no plate of a site."""
    used = {frame.dim + 4 for frame in node["cond_indep_stack"] if frame.vectorized}
    return tuple(place for place in (1, 2, 3) if place not in used)


def _log_prob(outcome: Any, y: Tensor) -> Tensor:
    """Return the log density of each output, `(draws, rows, time, outputs)`."""
    seen = observed_values("y", y)
    if outcome.event_dim:
        log_prob: Tensor = outcome.per_output().log_prob(seen.values.unsqueeze(-2)).squeeze(-2)
    else:
        log_prob = outcome.log_prob(seen.values)
    return log_prob if seen.mask is None else log_prob.masked_fill(~seen.mask, torch.nan)
