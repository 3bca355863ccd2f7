"""How deeply a model nests its plates, and what they say of its rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyro
import pyro.poutine
import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame

from pyro_vdn.infer.evaluating import kept_noise
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.sites import PARTICLES


def guess_max_plate_nesting(
    model: Program, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> int:
    """Return the largest number of nested vectorised plates, found by running the model once.

    The random state is left as it was, and nothing is seen from outside.

    Args:
        model: The Pyro program.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    with kept_noise(), torch.no_grad(), pyro.poutine.block():
        trace = pyro.poutine.trace(model).get_trace(*args, **(kwargs or {}))
    return max_plate_nesting(trace.nodes.values())


def max_plate_nesting(sites: Iterable[Mapping[str, Any]]) -> int:
    """Return the largest number of nested vectorised plates that sample sites stand in.

    Args:
        sites: Sites of a trace.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> trace = pyro.poutine.trace(Regression(3)).get_trace(torch.zeros(5, 3))
        >>> max_plate_nesting(trace.nodes.values())
        2
    """
    dims = [
        frame.dim
        for site in sites
        if site["type"] == "sample"
        for frame in site["cond_indep_stack"]
        if frame.vectorized
    ]
    return -min(dims, default=0)


def common_plate(
    stacks: Iterable[Iterable[CondIndepStackFrame]],
) -> CondIndepStackFrame | None:
    """Return the outermost plate that all sites share, or None where they differ in it.

    Args:
        stacks: The plates of each site, of which those of particles do not count.

    Example:
        >>> with pyro.plate("rows", 5, dim=-2) as _, pyro.poutine.trace() as seen:
        ...     for name in ("x", "y"):
        ...         _ = pyro.sample(name, pyro.distributions.Normal(torch.zeros(5, 1), 1.0))
        >>> common_plate(seen.trace.nodes[name]["cond_indep_stack"] for name in ("x", "y")).name
        'rows'
    """
    outermost = [
        min(
            (frame for frame in frames if frame.vectorized and frame.name != PARTICLES),
            key=lambda frame: frame.dim,
            default=None,
        )
        for frames in stacks
    ]
    same = len({None if frame is None else frame.name for frame in outermost}) == 1
    return outermost[0] if same else None


def holds_sequences(plates: Iterable[CondIndepStackFrame]) -> bool:
    """Say whether an outcome's rows are sequences: then their plate stands left of that of time.

    Args:
        plates: The plates of the outcome's site, none of them of particles.

    Example:
        >>> from pyro_vdn.models import Regression, StateSpace
        >>> def plates_of(model, x):
        ...     return pyro.poutine.trace(model).get_trace(x).nodes["y"]["cond_indep_stack"]
        >>> holds_sequences(plates_of(Regression(3), torch.zeros(5, 3)))
        False
        >>> holds_sequences(plates_of(StateSpace(3), torch.zeros(5, 10, 3)))
        True
    """
    return any(frame.vectorized and frame.dim < -2 for frame in plates)
