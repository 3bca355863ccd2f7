"""How much of a loss is paid for memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

import torch

from pyro_vdn.diagnostics._checks import check_layers
from pyro_vdn.errors import InputError
from pyro_vdn.infer.loss import Terms
from pyro_vdn.nn.shapes import check_choice

Of = Literal["kl", "penalty"]


def memory_share(terms: Terms, layers: Collection[str], *, of: Of = "kl") -> float:
    r"""Return the share of memory in a loss, `A / (A + |L|)`.

    `A` is what layers with memory pay, weights included, `L` the log-likelihood. Under an
    ELBO it is what `PersistenceShare` holds near a target.

    Args:
        terms: Terms of the loss, see `LocalELBO.terms`.
        layers: Paths of the layers with memory.
        of: Whether memory is the KL to their prior over time, or their penalties, such as
            `autoregressive_cost`.

    Returns:
        The share, in [0, 1].

    Raises:
        InputError: For no layer, or one that is not in the terms.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.infer import LocalELBO
        >>> from pyro_vdn.testing.sequences import TrackingModel, slow_signal
        >>> model = TrackingModel(torch.tensor([0.9, 0.5]))
        >>> terms = LocalELBO().terms(model, NeuronGuide(model), *slow_signal(8, 20))
        >>> 0 < memory_share(terms, ["neurons"]) < 1
        True
    """
    check_choice("of", of, get_args(Of))
    by_layer = terms.kl if of == "kl" else terms.penalty
    if not layers:
        raise InputError(
            "layers", expected="at least one path", got="none", hint=f"layers={list(by_layer)[:1]}"
        )
    check_layers("layers", layers, by_layer)
    paid = torch.stack([by_layer[path].detach().sum() for path in layers]).sum()
    likelihood = torch.stack([v.detach().sum() for v in terms.log_likelihood.values()]).sum()
    return float(paid / (paid + likelihood.abs()))
