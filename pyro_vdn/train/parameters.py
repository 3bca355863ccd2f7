"""Counting the parameters that take part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyro.poutine
import torch
from torch import Tensor

from pyro_vdn.train.default_loss import default_loss

Program = Callable[..., Any]


def count_parameters(model: Program, guide: Program, batch: tuple[Tensor, Tensor]) -> int:
    """Count the parameters on which the predictive density of a few rows depends.

    A parameter that an effect takes out of play is not counted: in the deterministic twin that is
    the scale head of the neurons.

    Args:
        model: A Pyro program.
        guide: Its guide.
        batch: Inputs and targets of a few rows.

    Returns:
        The number of parameters.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.poutine import deterministic
        >>> model, batch = Regression(3), (torch.zeros(2, 3), torch.zeros(2, 1))
        >>> twin = deterministic(model)
        >>> count_parameters(model, NeuronGuide(model), batch)
        303
        >>> count_parameters(twin, NeuronGuide(twin), batch)
        253
    """
    loss = default_loss(model, batch)
    with torch.random.fork_rng(), pyro.poutine.trace(param_only=True) as capture:
        total = loss.differentiable_loss(model, guide, *batch)
    leaves = _leaves(model, guide, capture.trace.nodes.values())
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    used = zip(leaves, gradients, strict=True)
    return sum(leaf.numel() for leaf, gradient in used if gradient is not None)


def _leaves(model: Program, guide: Program, sites: Iterable[dict[str, Any]]) -> list[Tensor]:
    """Return the distinct leaves held by modules or made by `pyro.param`."""
    leaves: dict[Tensor, None] = {}
    for program in (model, guide):
        module = pyro.poutine.unwrap(program)
        if isinstance(module, torch.nn.Module):
            leaves.update(dict.fromkeys(module.parameters()))
    for site in sites:
        unconstrained = getattr(site["value"], "unconstrained", None)
        leaves[site["value"] if unconstrained is None else unconstrained()] = None
    return [leaf for leaf in leaves if leaf.is_leaf and leaf.requires_grad]
