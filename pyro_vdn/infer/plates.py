"""How deeply a model nests its plates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyro.poutine
import torch

from pyro_vdn.infer.single_pass import Program


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
    with torch.random.fork_rng(), torch.no_grad(), pyro.poutine.block():
        trace = pyro.poutine.trace(model).get_trace(*args, **(kwargs or {}))
    dims = [
        frame.dim
        for site in trace.nodes.values()
        if site["type"] == "sample"
        for frame in site["cond_indep_stack"]
        if frame.vectorized
    ]
    return -min(dims, default=0)
