"""Data that a model makes of its own prior, and where a guide's draws place their origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import pyro
import pyro.poutine
import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.plates import common_plate, guess_max_plate_nesting
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.sites import DRAWS

Observe: TypeAlias = Callable[[Mapping[str, Tensor]], Sequence[Any]]
"""From all that a model has drawn, by site, to the arguments that show the data to its guide."""

Quantity: TypeAlias = Callable[[Mapping[str, Tensor]], Tensor]
"""From latents by site, `(..., rows, *site)`, to numbers `(..., rows, *any)`."""

LOG_LIKELIHOOD = "log_likelihood"


class Layout(NamedTuple):
    """Where the rows of a model's sites stand, and what it observes.

    Args:
        nesting: Number of nested plates.
        rows: Dimension of the plate of rows, or None where there is none.
        independent: Whether each row is a simulation; otherwise all rows together are one.
        observed: Names of the observed sites.
        latent: Names of the latent ones, and whether each stands in the plate of rows.

    Example:
        >>> Layout(2, -2, True, ("y",), {"neurons.z": True}).rows
        -2
    """

    nesting: int
    rows: int | None
    independent: bool
    observed: tuple[str, ...]
    latent: dict[str, bool]


class Simulation(NamedTuple):
    """A simulated data set.

    Args:
        args: The arguments that show it to model and guide.
        prior: Trace of the run that made it.

    Example:
        >>> Simulation((), Trace()).args
        ()
    """

    args: tuple[Any, ...]
    prior: Trace


def simulate(model: Program, args: Sequence[Any], observe: Observe) -> Simulation:
    """Draw latents and outcome from a model's prior, whatever it is told to observe."""
    prior = pyro.poutine.trace(pyro.poutine.uncondition(model)).get_trace(*args)
    values = {name: prior.nodes[name]["value"] for name in prior.stochastic_nodes}
    return Simulation(tuple(observe(values)), prior)


def lay_out(model: Program, simulation: Simulation, *, independent_rows: bool) -> Layout:
    """Find out what a model observes, given data, and whether its rows are simulations.

    Args:
        model: The program.
        simulation: Data that it made.
        independent_rows: Whether rows may be taken for simulations at all.

    Raises:
        InputError: Where nothing is observed, not what was drawn, or nothing is latent.
    """
    given = pyro.poutine.trace(model).get_trace(*simulation.args)
    observed = [name for name in given.observation_nodes if not _is_statement(given.nodes[name])]
    latent = [name for name in given.stochastic_nodes if not site_is_subsample(given.nodes[name])]
    if not observed:
        raise InputError(
            "observe",
            expected="arguments that show the model its outcome",
            got=f"some with which it still draws {latent}",
            hint='observe=lambda drawn: (x, drawn["y"])',
        )
    if not latent:
        raise InputError(
            "model",
            expected="a latent site",
            got=f"observations alone: {observed}",
            hint="a model with a layer of VariationalNeurons",
        )
    for name in observed:
        _check_shown(name, given.nodes[name]["value"], simulation.prior)
    frame = common_plate(given.nodes[name]["cond_indep_stack"] for name in observed)
    inside = {name: frame is not None and _stands_in(given.nodes[name], frame) for name in latent}
    return Layout(
        nesting=guess_max_plate_nesting(model, simulation.args),
        rows=None if frame is None else frame.dim,
        independent=independent_rows and all(inside.values()),
        observed=tuple(observed),
        latent=inside,
    )


def _stands_in(site: Mapping[str, Any], plate: CondIndepStackFrame) -> bool:
    return plate.name in {frame.name for frame in site["cond_indep_stack"]}


def _is_statement(site: Mapping[str, Any]) -> bool:
    return bool(site["infer"].get("_deterministic"))


def _check_shown(name: str, shown: Tensor, prior: Trace) -> None:
    """Refuse an observation that is not the one which the model drew."""
    drawn = prior.nodes[name]["value"] if name in prior.nodes else None
    if drawn is None or drawn.shape != shown.shape or not torch.equal(drawn, shown):
        raise InputError(
            f"site '{name}'",
            expected="the very outcome that was drawn, as an observation",
            got="another value",
            hint="let `observe` hand over every outcome; local reconstruction, whose targets no "
            "draw makes, cannot be simulated: build the model without it",
        )


def ranks_of(
    model: Program,
    guide: Program,
    simulation: Simulation,
    layout: Layout,
    *,
    num_draws: int,
    quantities: Mapping[str, Quantity],
) -> dict[str, Tensor]:
    """Return ranks of the origin among a guide's draws, `(simulations, ...)` by quantity."""
    truth = _latents(simulation.prior, layout, "model")
    with pyro.plate(DRAWS, num_draws, dim=-1 - layout.nesting):
        guided = pyro.poutine.trace(guide).get_trace(*simulation.args)
        draws = _latents(guided, layout, "guide")
        given_draws = _conditioned(model, simulation, draws, layout)
    given_truth = _conditioned(model, simulation, truth, layout)
    _check_prior(given_truth, simulation.prior, layout)
    values, others = {}, {}
    for name in layout.latent:
        event_dim = simulation.prior.nodes[name]["fn"].event_dim
        values[name] = _rows_first(truth[name], layout, event_dim, axis=0)
        others[name] = _rows_first(draws[name], layout, event_dim, axis=1)
    _check_names(quantities, layout)
    extra = {
        name: (quantity(dict(values)), quantity(dict(others)))
        for name, quantity in quantities.items()
    }
    extra[LOG_LIKELIHOOD] = (
        _log_likelihood(given_truth, layout, axis=0),
        _log_likelihood(given_draws, layout, axis=1),
    )
    ranks = {}
    for name, in_rows in layout.latent.items():
        ranks[name] = _rank(name, values[name], others[name])
        if in_rows and not layout.independent:  # rows hang together: the first stands for all
            assert layout.rows is not None
            event_dim = simulation.prior.nodes[name]["fn"].event_dim
            ranks[name] = ranks[name].select(layout.rows - event_dim, 0)
    for name, pair in extra.items():
        _check_quantity(name, *pair, count=len(extra[LOG_LIKELIHOOD][0]))
        ranks[name] = _rank(name, *pair)
    return {name: _squeezed(rank) for name, rank in ranks.items()}


def _latents(trace: Trace, layout: Layout, program: str) -> dict[str, Tensor]:
    for name in layout.latent:
        if name not in trace.nodes:
            raise InputError(
                program,
                expected=f"a program that draws {list(layout.latent)}",
                got=f"one without '{name}'",
                hint="NeuronGuide(model, others=...) draws all that is latent",
            )
    return {name: trace.nodes[name]["value"] for name in layout.latent}


def _conditioned(
    model: Program, simulation: Simulation, latents: dict[str, Tensor], layout: Layout
) -> Trace:
    """Run a model on its data, with its latents fixed, and weigh what it observes."""
    fixed = pyro.poutine.condition(model, data=latents)
    trace = pyro.poutine.trace(fixed).get_trace(*simulation.args)
    trace.compute_log_prob(site_filter=lambda name, _: name in layout.observed)
    return trace


def _log_likelihood(trace: Trace, layout: Layout, *, axis: int) -> Tensor:
    """Return the log likelihood of each simulation, `(simulations,)` or `(draws, simulations)`."""
    parts = [
        _rows_first(trace.nodes[name]["log_prob"], layout, 0, axis=axis).flatten(axis + 1).sum(-1)
        for name in layout.observed
    ]
    return torch.stack(parts).sum(0)


def _rows_first(values: Tensor, layout: Layout, event_dim: int, *, axis: int) -> Tensor:
    """Return values with the simulations at an axis: 0, or 1 where draws come first."""
    missing = layout.nesting + event_dim + axis - values.dim()
    values = values.reshape((1,) * missing + values.shape)
    if not layout.independent:
        return values.unsqueeze(axis)
    assert layout.rows is not None
    return values.movedim(layout.rows - event_dim, axis)


def _squeezed(ranks: Tensor) -> Tensor:
    """Drop dimensions of size 1 other than that of simulations."""
    return ranks.reshape(len(ranks), *(size for size in ranks.shape[1:] if size > 1))


def _check_names(quantities: Mapping[str, Quantity], layout: Layout) -> None:
    for name in quantities:
        if name in layout.latent or name == LOG_LIKELIHOOD:
            raise InputError(
                f"quantity '{name}'",
                expected="a name of its own",
                got="that of a latent site, or of what is ranked in any case",
                hint=f"'{name} squared', or whatever it is a function of",
            )


def _check_quantity(name: str, truth: Tensor, draws: Tensor, *, count: int) -> None:
    if truth.shape[:1] != (count,) or draws.shape[1:] != truth.shape:
        raise InputError(
            f"quantity '{name}'",
            expected=f"shape ({count}, ...) for the truth and (draws, {count}, ...) for draws",
            got=f"{tuple(truth.shape)} and {tuple(draws.shape)}",
            hint="count dimensions from the right, as in values['neurons.z'].square().sum(-1)",
        )


def _rank(name: str, truth: Tensor, draws: Tensor) -> Tensor:
    """Return how many draws are below the truth, ties broken at random."""
    if bool(torch.isnan(draws).any() | torch.isnan(truth).any()):
        raise InputError(
            f"quantity '{name}'", expected="numbers", got="nan", hint="check prior and guide"
        )
    below, ties = (draws < truth).sum(dim=0), (draws == truth).sum(dim=0)
    spread = (torch.rand(truth.shape, device=truth.device) * (ties + 1)).long()
    return below + torch.minimum(spread, ties)


def _check_prior(given: Trace, prior: Trace, layout: Layout) -> None:
    """Refuse a prior that reads what is observed: the draws would not be from it."""
    for name in layout.latent:
        drawn = prior.nodes[name]["value"]
        before = prior.nodes[name]["fn"].log_prob(drawn)
        after = given.nodes[name]["fn"].log_prob(drawn)
        if not torch.allclose(after, before, rtol=1e-4, atol=1e-4):
            raise InputError(
                f"site '{name}'",
                expected="a prior that is the same whatever is observed",
                got=f"log density {float(after.sum()):.6g} given data, "
                f"{float(before.sum()):.6g} when they were drawn",
                hint="a prior that reads the outcome generates no data: let it read inputs alone",
            )
