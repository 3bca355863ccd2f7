"""Posterior predictive distributions of the next token, draw by draw."""

from __future__ import annotations

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.single_pass import Pass, Program, run_single_pass
from pyro_vdn.infer.site import Site
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.nn.sites import DRAWS, POSTERIOR, layer_of
from pyro_vdn.nn.unit_measures import precise


class TokenDraws(NamedTuple):
    """What S draws say of the tokens that follow, and what the neurons did at each of them.

    Args:
        log_probs: `log p(y_t | z^s, y_<t)` of every token of the vocabulary, in nats,
            `(draws, rows, time, vocabulary)`.
        kl: By layer, the KL from posterior to prior in nats, summed over units and averaged over
            draws, `(rows, time)`.
        scale: By layer, the posterior's scale, averaged over units and draws, `(rows, time)`.

    Example:
        >>> TokenDraws(torch.zeros(2, 3, 4, 5), {}, {}).log_probs.shape
        torch.Size([2, 3, 4, 5])
    """

    log_probs: Tensor
    kl: dict[str, Tensor]
    scale: dict[str, Tensor]


def token_draws(
    model: Program,
    guide: Program,
    tokens: Tensor,
    *,
    num_samples: int = 16,
    site: str = "next_token",
) -> TokenDraws:
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
        Log probabilities, and KL and scale of the neurons at every token, without gradients and in
        single precision at least.

    Raises:
        InputError: For a site that does not exist or is not categorical, or sequences in more
            dimensions than rows and time.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import VariationalGPT
        >>> model = VariationalGPT(65, block_size=16, num_layers=2, width=32)
        >>> tokens = torch.zeros(3, 16, dtype=torch.long)
        >>> draws = token_draws(model, NeuronGuide(model), tokens, num_samples=5)
        >>> draws.log_probs.shape, draws.kl["blocks.0.neurons"].shape
        (torch.Size([5, 3, 16, 65]), torch.Size([3, 16]))
    """
    check_positive(num_samples=num_samples)
    if tokens.dim() > 2:
        raise InputError(
            "tokens",
            expected="sequences of shape (rows, time): what stands left of rows are the draws",
            got=f"shape {tuple(tokens.shape)}",
            hint="`tokens.flatten(end_dim=-2)`",
        )
    give_own_store(model, guide)
    # Observed at whatever value, the site draws no token: only its distribution is wanted.
    observed = pyro.poutine.condition(data={site: tokens.unsqueeze(-1)})
    with torch.no_grad(), observed, pyro.plate(DRAWS, num_samples, dim=-4):
        run = run_single_pass(model, guide, (tokens,), {})
        logits = _logits(run, site).squeeze(-2)  # (..., rows, time, 1, V) -> (..., rows, time, V)
        log_probs = logits.log_softmax(-1).expand(num_samples, *logits.shape[-3:])
        layers = {layer_of(neurons.name): neurons for neurons in run.neurons}
        kl = {
            path: _per_token(layer.unweighted_kl(), layer).sum(-1) for path, layer in layers.items()
        }
        scale = {path: _per_token(_scale(layer), layer).mean(-1) for path, layer in layers.items()}
    return TokenDraws(log_probs, kl, scale)


def _logits(run: Pass, site: str) -> Tensor:
    outcome = next((seen for seen in run.observed if seen.name == site), None)
    if outcome is None or not isinstance(outcome.fn, dist.Categorical):
        raise InputError(
            "site",
            expected=f"a categorical site, one of {[s.name for s in (*run.observed, *run.others)]}",
            got=repr(site),
            hint="site='next_token'",
        )
    return precise(outcome.fn.logits)


def _scale(layer: Site) -> Tensor:
    variance: Tensor = layer.infer[POSTERIOR]().variance
    scale = variance.sqrt()
    return scale.mean(-1) if layer.fn.event_dim else scale


def _per_token(values: Tensor, layer: Site) -> Tensor:
    """Average values that broadcast to `(draws, rows, time, units)` over draws."""
    *_, rows, time, units = layer.batch_shape
    leading = values.shape[:-3]
    return (
        precise(values).expand(*leading, rows, time, units).reshape(-1, rows, time, units).mean(0)
    )
