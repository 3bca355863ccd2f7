"""The loss that suits a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.poutine
import torch
from pyro.infer import ELBO
from torch import Tensor

from pyro_vdn.infer import LocalELBO, PACmELBO
from pyro_vdn.infer.plates import holds_sequences
from pyro_vdn.nn.sites import MARGINAL


def default_loss(model: Callable[..., Any], batch: tuple[Tensor, Tensor]) -> ELBO:
    """Return the closed-form predictive loss where a model offers a marginal, else `LocalELBO`.

    Sequences have `LocalELBO` too: the marginal on offer is that of a step by itself, while the
    evidence of a sequence is that of its steps together.

    Args:
        model: The Pyro program.
        batch: Inputs and targets of a few rows.

    Returns:
        The loss.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> default_loss(Regression(3), (torch.zeros(2, 3), torch.zeros(2, 1))).closed_form
        True
    """
    with torch.random.fork_rng(), torch.no_grad(), pyro.poutine.block():
        trace = pyro.poutine.trace(model).get_trace(*batch)
    sites = [trace.nodes[name] for name in trace.observation_nodes]
    offered = any(
        MARGINAL in site["infer"] and not holds_sequences(site["cond_indep_stack"])
        for site in sites
    )
    return PACmELBO(closed_form=True) if offered else LocalELBO()
