"""Posterior predictive distributions of the next token, draw by draw."""

from __future__ import annotations

import pyro
import pyro.poutine
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.single_pass import Program, run_single_pass
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.nn.sites import DRAWS


def token_log_probs(
    model: Program,
    guide: Program,
    tokens: Tensor,
    *,
    num_samples: int = 16,
    site: str = "next_token",
) -> Tensor:
    r"""Return `log p(y_t | z^s, y_<t)` of every token that may follow, for each of S draws.

    All draws are made in one run of the model: each is one trajectory through all layers, with what
    stands before the first neurons computed once. The predictive distribution is their average
    `p(y_t | y_<t) = 1/S sum_s p(y_t | z^s, y_<t)`.

    Args:
        model: A Pyro program called as ``model(tokens)``, with a categorical site of batch shape
            `(rows, time, 1)`, such as `VariationalGPT`, with any effects wrapped around it.
        guide: Its guide.
        tokens: Sequences, `(rows, time)`.
        num_samples: Number S of draws.
        site: Name of the categorical site.

    Returns:
        Log probabilities in nats, `(num_samples, rows, time, vocabulary)`, without gradients.

    Raises:
        InputError: For a site that does not exist or is not categorical.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import VariationalGPT
        >>> model = VariationalGPT(65, block_size=16, num_layers=2, width=32)
        >>> tokens = torch.zeros(3, 16, dtype=torch.long)
        >>> token_log_probs(model, NeuronGuide(model), tokens, num_samples=5).shape
        torch.Size([5, 3, 16, 65])
    """
    check_positive(num_samples=num_samples)
    give_own_store(model, guide)
    # Observed at whatever value, the site draws no token: only its distribution is wanted.
    observed = pyro.poutine.condition(data={site: tokens.unsqueeze(-1)})
    with torch.no_grad(), observed, pyro.plate(DRAWS, num_samples, dim=-4):
        run = run_single_pass(model, guide, (tokens,), {})
    outcome = next((seen for seen in run.observed if seen.name == site), None)
    logits = getattr(getattr(outcome, "fn", None), "logits", None)
    if not isinstance(logits, Tensor):
        raise InputError(
            "site",
            expected=f"a categorical site, one of {[s.name for s in (*run.observed, *run.others)]}",
            got=repr(site),
            hint="site='next_token'",
        )
    log_probs = logits.log_softmax(-1).squeeze(
        -2
    )  # (..., rows, time, 1, V) -> (..., rows, time, V)
    return log_probs.expand(num_samples, *log_probs.shape[-3:])
