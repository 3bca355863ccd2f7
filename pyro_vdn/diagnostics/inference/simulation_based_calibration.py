"""Simulation-based calibration: does a guide draw from the posterior of the model's own data?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_level
from pyro_vdn.diagnostics.inference._simulated import Observe, Quantity, lay_out, ranks_of, simulate
from pyro_vdn.diagnostics.inference.sbc_result import SBCResult
from pyro_vdn.errors import InputError
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.shapes import check_positive

Fit = Callable[..., Program]
"""From the arguments that show a simulated data set to a guide that is fitted to it."""


def simulation_based_calibration(
    model: Program,
    guide: Program | None,
    args: Sequence[Any] = (),
    *,
    observe: Observe | None = None,
    fit: Fit | None = None,
    num_simulations: int = 500,
    num_draws: int = 99,
    quantities: Mapping[str, Quantity] | None = None,
    level: float = 0.95,
    seed: int = 0,
    site: str = "y",
) -> SBCResult:
    r"""Check a guide against the posterior of data that the model makes of its prior.

    .. math:: \tilde z \sim p(z), \quad \tilde y \sim p(y \mid \tilde z), \quad
        z_s \sim q(z \mid \tilde y), \qquad r = \#\{s : z_s < \tilde z\}

    If `q` is the posterior, `r` is uniform on 0, ..., S for every latent and every function of it.
    Too narrow a guide has too many ranks at both ends.

    Where all latent sites stand in the plate of rows, each row is a simulation, so that one run
    with many rows does many at once. Where rows share a latent site, or a guide is fitted to each
    data set, a run is one simulation, and its first row stands for the latents of all. Draws of a
    guide are independent, so none are thinned.

    The log likelihood of each simulation is a quantity too, ``log_likelihood``: it finds the guide
    that ignores the data, whose other ranks are uniform. A guide for inputs alone, whose neurons
    never see the outcome, is of that kind, and fails rightly.

    Args:
        model: A Pyro program that can make its own outcome: a prior that reads no outcome.
        guide: Its guide; None where `fit` makes one.
        args: Arguments with which the model makes data. A model that always observes is given
            placeholders of the right shape.
        observe: From all drawn values, by site, to the arguments that show the data to model and
            guide. By default the arguments and, after them, the outcome.
        fit: From these arguments to a guide that is fitted to them: the slow path, a fit for each
            simulation. What a fit puts into Pyro's parameter store is gone before the next one;
            make the guide in it, for modules made outside of it start where the last fit ended.
        num_simulations: Number of simulations, at least 2.
        num_draws: Number S of draws for each, at least 1.
        quantities: Further quantities to rank, by name: functions of the latents by site, each of
            shape `(simulations, *site)` or, for draws, `(draws, simulations, *site)`.
        level: Probability that an exact guide passes, all quantities together.
        seed: Seed of all draws; the caller's random state is untouched.
        site: Name of the outcome's site, which the default of `observe` hands over.

    Returns:
        Ranks and verdicts.

    Raises:
        InputError: If guide and `fit` are both given or both missing, the model observes nothing or
            something else than what was drawn, its prior reads the outcome, or the guide does not
            draw all that is latent.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.testing import ConjugateNeurons
        >>> model = ConjugateNeurons(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> model.set_exact_()
        >>> result = simulation_based_calibration(
        ...     model, NeuronGuide(model), (torch.zeros(50, 2),), num_simulations=100,
        ...     observe=lambda drawn: (drawn["y"],)
        ... )
        >>> result.passed, result.ranks["neurons.z"].shape
        (True, torch.Size([100]))

    Source: Talts, Betancourt, Simpson, Vehtari and Gelman, *Validating Bayesian Inference
    Algorithms with Simulation-Based Calibration*, 2018; the log likelihood: Modrák et al.,
    *Simulation-Based Calibration Checking for Bayesian Computation: The Choice of Test Quantities
    Shapes Sensitivity*, 2023.
    """
    _check_arguments(guide, fit, num_simulations)
    check_positive(num_draws=num_draws)
    check_level(level)
    show = observe if observe is not None else _append(tuple(args), site)
    parts: list[dict[str, Tensor]] = []
    layout, done = None, 0
    give_own_store(model, model if guide is None else guide)
    with own_noise(seed), evaluating(model):
        while done < num_simulations:
            with _own_parameters() if fit is not None else nullcontext():
                with torch.no_grad():
                    simulation = simulate(model, args, show)
                    if layout is None:
                        layout = lay_out(model, simulation, independent_rows=fit is None)
                used = fit(*simulation.args) if fit is not None else guide
                assert used is not None
                with evaluating(used), torch.no_grad():
                    ranks = ranks_of(
                        model,
                        used,
                        simulation,
                        layout,
                        num_draws=num_draws,
                        quantities=quantities or {},
                    )
            parts.append(ranks)
            done += len(next(iter(ranks.values())))
    joined = {
        name: torch.cat([part[name] for part in parts])[:num_simulations] for name in parts[0]
    }
    return SBCResult(joined, num_draws, level)


def _own_parameters() -> AbstractContextManager[Any]:
    """Return a context whose parameter store starts as the present one and leaves it as it was.

    In Pyro's global parameter mode a guide that is made anew takes the parameters stored under its
    names: those of the last data set's.
    """
    store = pyro.get_param_store()
    context: AbstractContextManager[Any] = store.scope(store.get_state())
    return context


def _append(args: tuple[Any, ...], site: str) -> Observe:
    def observe(drawn: Mapping[str, Tensor]) -> Sequence[Any]:
        if site not in drawn:
            raise InputError(
                "site",
                expected=f"an outcome among {list(drawn)}",
                got=repr(site),
                hint='site="y", or observe=lambda drawn: (...) for several outcomes',
            )
        return (*args, drawn[site])

    return observe


def _check_arguments(guide: Program | None, fit: Fit | None, num_simulations: int) -> None:
    if (guide is None) == (fit is None):
        raise InputError(
            "guide, fit",
            expected="exactly one of the two",
            got="none" if guide is None else "both",
            hint="guide=None with fit=..., which returns a guide for each simulated data set",
        )
    if num_simulations < 2:
        raise InputError(
            "num_simulations",
            expected="at least 2",
            got=str(num_simulations),
            hint="num_simulations=500",
        )
