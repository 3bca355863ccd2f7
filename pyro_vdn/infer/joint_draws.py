"""Joint draws of all latent sites and of the outcome, chunk by chunk of draws and rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import pyro.poutine
import torch
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.evaluating import kept_noise
from pyro_vdn.infer.plates import max_plate_nesting
from pyro_vdn.infer.prediction import check_outcome_rows
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.sites import DRAWS, Message

CHUNK_ELEMENTS = 2**22
"""Most numbers that the sites of one chunk hold; what is computed between them comes on top."""


@dataclass(frozen=True)
class JointDraws:
    """What S draws of some rows are, as the sites of Pyro's traces.

    Draws are the first dimension of every value, and rows the second of the outcome's.

    Args:
        latents: Latent sites by name: those of the guide, and those of the model that it leaves to
            the prior.
        outcome: The outcome's site; its ``"fn"`` is the likelihood given the latents.

    Example:
        >>> JointDraws({}, {"value": torch.zeros(7, 5, 1)}).outcome["value"].shape
        torch.Size([7, 5, 1])
    """

    latents: dict[str, Message]
    outcome: Message


class Chunk(NamedTuple):
    """Some draws of some rows.

    Args:
        draws: Which of all draws.
        rows: Which of all rows.
        values: What they are.

    Example:
        >>> Chunk(slice(0, 7), slice(0, 5), JointDraws({}, {})).rows.stop
        5
    """

    draws: slice
    rows: slice
    values: JointDraws


class Look(NamedTuple):
    """What one run of a model on one row shows.

    Args:
        sites: Its sample sites by name, in the order they ran.
        dim: The dimension of a plate of draws around the program, negative.
        width: How many numbers the sites of one draw of one row hold.

    Example:
        >>> Look({}, -3, 1).dim
        -3
    """

    sites: dict[str, Message]
    dim: int
    width: int

    def rows_at_once(self, inputs: Sequence[Tensor], batch_size: int) -> int:
        """Return how many rows a chunk has: at most `batch_size`, and at least one."""
        return max(1, min(batch_size, len(inputs[0]), CHUNK_ELEMENTS // max(1, self.width)))


def look_at(model: Program, inputs: Sequence[Tensor]) -> Look:
    """Run a model alone on the first row, unseen and with the random state left as it was.

    Args:
        model: A Pyro program.
        inputs: Inputs, each `(rows, ...)`.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> look = look_at(Regression(3, num_units=4), (torch.zeros(5, 3),))
        >>> look.dim, look.width, "neurons.z" in look.sites
        (-3, 5, True)
    """
    with kept_noise(), torch.no_grad(), pyro.poutine.block():
        trace = pyro.poutine.trace(model).get_trace(*(value[:1] for value in inputs))
    sites = {
        name: node
        for name, node in trace.nodes.items()
        if node["type"] == "sample" and not site_is_subsample(node)
    }
    dim = -1 - max_plate_nesting(sites.values())
    return Look(sites, dim, sum(_width(node["fn"]) for node in sites.values()))


def _width(distribution: Any) -> int:
    """Return how many numbers a distribution holds: of classes, one for each."""
    shape = getattr(distribution, "param_shape", None)
    if not isinstance(shape, torch.Size):
        shape = distribution.batch_shape + distribution.event_shape
    return shape.numel()


def draw_jointly(
    model: Program,
    guide: Program | None,
    inputs: Sequence[Tensor],
    num_samples: int,
    *,
    site: str,
    shared: Trace,
    look: Look | None = None,
) -> JointDraws:
    """Draw all latent sites from a guide, and the outcome that follows, in one run of both.

    Args:
        model: A Pyro program, called as ``model(*inputs)``.
        guide: Its guide; None draws from the prior, the model alone.
        inputs: Inputs, each `(rows, ...)`.
        num_samples: Number of draws.
        site: Name of the outcome's site.
        shared: Latent sites outside of the plate of rows come from it where it holds them, and are
            put into it: handed from call to call, all rows see the same draws of them.
        look: What `look_at` showed of the model, if known.

    Raises:
        InputError: For an unknown site, or one without rows or with several event dimensions.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model, x = Regression(3, num_units=4), (torch.zeros(5, 3),)
        >>> drawn = draw_jointly(model, NeuronGuide(model), x, 7, site="y", shared=Trace())
        >>> drawn.latents["neurons.z"]["value"].shape, drawn.outcome["value"].shape
        (torch.Size([7, 5, 4]), torch.Size([7, 5, 1]))
    """
    look = look or look_at(model, inputs)
    if site not in look.sites:
        raise InputError(
            "site", expected=f"one of {list(look.sites)}", got=repr(site), hint="site='y'"
        )
    drawn: dict[str, Message] = {}
    if guide is not None:
        guided = _run(guide, inputs, num_samples, look, shared)
        drawn = _latents(guided, site)
        model = pyro.poutine.replay(model, trace=guided)
    trace = _run(model, inputs, num_samples, look, shared)
    outcome: Message = trace.nodes[site]
    check_outcome_rows(site, outcome["fn"], len(inputs[0]))
    latents = {**_latents(trace, site), **drawn}
    for name, node in latents.items():
        if not (site_is_subsample(node) or _in_rows(node, look, site, len(inputs[0]))):
            shared.nodes[name] = node
    return JointDraws(
        {name: node for name, node in latents.items() if not site_is_subsample(node)}, outcome
    )


def _run(
    program: Program, inputs: Sequence[Tensor], num_samples: int, look: Look, shared: Trace
) -> Trace:
    """Run a program for all draws at once, with what is shared by all rows."""
    with pyro.plate(DRAWS, num_samples, dim=look.dim), pyro.poutine.replay(trace=shared):
        return pyro.poutine.trace(program).get_trace(*inputs)


def _latents(trace: Trace, site: str) -> dict[str, Message]:
    return {name: trace.nodes[name] for name in trace.stochastic_nodes if name != site}


def _in_rows(node: Message, look: Look, site: str, rows: int) -> bool:
    """Say whether a site stands in a plate of rows: the outcome's, or one that is as large.

    A plate in their place whose size does not follow the number of rows is none of them. One of the
    guide's own, which the model does not have, is known by its size alone.
    """
    place = look.dim + 1
    frames = [frame for node in look.sites.values() for frame in node["cond_indep_stack"]]
    others = {frame.name for frame in frames if frame.dim == place and frame.size > 1}
    others -= {frame.name for frame in look.sites[site]["cond_indep_stack"]}
    return any(
        frame.dim == place and frame.size == rows and frame.name not in others
        for frame in node["cond_indep_stack"]
    )


def chunks_of_draws(
    model: Program,
    guide: Program | None,
    inputs: Sequence[Tensor],
    num_samples: int,
    *,
    batch_size: int,
    site: str,
) -> Iterator[Chunk]:
    """Draw jointly, as many draws and rows at once as a bounded amount of memory holds.

    Draws are cut on the outside and rows on the inside, so that latent sites outside of the plate
    of rows are drawn once for all rows. How draws and rows are cut follows from the number of each,
    `batch_size` and the model; another cut gives other noise of the same distribution.

    Args:
        model: A Pyro program.
        guide: Its guide; None draws from the prior, the model alone.
        inputs: Inputs, each `(rows, ...)`.
        num_samples: Number of draws.
        batch_size: Most rows at once.
        site: Name of the outcome's site.

    Yields:
        Chunks that together hold each draw of each row once.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model, x = Regression(3), (torch.zeros(5, 3),)
        >>> chunks = list(chunks_of_draws(model, None, x, 7, batch_size=3, site="y"))
        >>> [(chunk.rows.start, chunk.rows.stop, chunk.draws.stop) for chunk in chunks]
        [(0, 3, 7), (3, 5, 7)]
    """
    look, total = look_at(model, inputs), len(inputs[0])
    rows = look.rows_at_once(inputs, batch_size)
    draws = max(1, min(num_samples, CHUNK_ELEMENTS // max(1, look.width * rows)))
    for first in range(0, num_samples, draws):
        some, shared = slice(first, min(first + draws, num_samples)), Trace()
        for start in range(0, total, rows):
            part = slice(start, min(start + rows, total))
            batch = [value[part] for value in inputs]
            values = draw_jointly(
                model, guide, batch, some.stop - some.start, site=site, shared=shared, look=look
            )
            yield Chunk(some, part, values)
