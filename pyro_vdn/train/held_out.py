"""The outcome of a model, and its predictive density of held-out targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyro.poutine
import torch
from torch import Tensor

from pyro_vdn.infer import log_density, token_draws
from pyro_vdn.nn.sites import LOCAL, PENALTY

Program = Callable[..., Any]
_NO_OUTCOME = (LOCAL, PENALTY, "_deterministic")
_TOKENS_AT_ONCE = 1024


class Outcome(NamedTuple):
    """Where a model observes its targets.

    Args:
        site: Name of the site.
        is_token: Whether the targets are tokens: integers `(rows, time)`, observed at a categorical
            site of batch shape `(rows, time, 1)`.

    Example:
        >>> Outcome("y", False).site
        'y'
    """

    site: str
    is_token: bool


def find_outcome(model: Program, batch: tuple[Tensor, Tensor]) -> Outcome:
    """Return where a model observes its targets: at ``"y"``, or at its only observed site.

    Args:
        model: A Pyro program called as ``model(x, y)``.
        batch: Inputs and targets of a few rows.

    Example:
        >>> from pyro_vdn.models import Regression, VariationalGPT
        >>> find_outcome(Regression(3), (torch.zeros(2, 3), torch.zeros(2, 1)))
        Outcome(site='y', is_token=False)
        >>> gpt = VariationalGPT(65, block_size=8, num_layers=1, width=8)
        >>> tokens = torch.zeros(2, 8, dtype=torch.long)
        >>> find_outcome(gpt, (tokens, tokens))
        Outcome(site='next_token', is_token=True)
    """
    with torch.random.fork_rng(), torch.no_grad(), pyro.poutine.block():
        trace = pyro.poutine.trace(model).get_trace(*batch)
    observed = [name for name in trace.observation_nodes if _is_outcome(trace.nodes[name])]
    site = observed[0] if len(observed) == 1 else "y"
    if site not in trace.nodes:
        return Outcome(site, False)  # its name is refused where it is scored
    fn, y = trace.nodes[site]["fn"], batch[1]
    categorical = not torch.is_floating_point(y) and hasattr(fn, "logits")
    return Outcome(site, categorical and trace.nodes[site]["value"].shape == (*y.shape, 1))


def held_out_density(
    model: Program, guide: Program, x: Tensor, y: Tensor, outcome: Outcome, *, num_samples: int
) -> tuple[Tensor | None, Tensor]:
    r"""Return the log of the averaged predictive density of targets, one by one and per row.

    Tokens are scored in one pass, `log 1/S sum_s p(y_t | z^s, y_<t)`; all else as `log_density`
    does.

    Args:
        model: The Pyro program.
        guide: Its guide.
        x: Inputs, `(rows, ...)`.
        y: Targets, `(rows, outputs)`, `(rows, time, outputs)` or, of tokens, `(rows, time)`.
        outcome: What `find_outcome` returned.
        num_samples: Number S of draws where there is no closed form.

    Returns:
        Densities of the shape of the targets (or None, see `log_density`), and `(rows,)`.
    """
    # Of sequences as many at once as have that many steps.
    rows = max(1, len(x) * y.shape[-1] // y[0].numel())
    if not outcome.is_token:
        return log_density(
            model, guide, x, y, num_samples=num_samples, batch_size=rows, site=outcome.site
        )
    per_token, joint = [], []
    rows = max(1, _TOKENS_AT_ONCE // y.shape[-1])
    for inputs, targets in zip(torch.split(x, rows), torch.split(y, rows), strict=True):
        draws = token_draws(model, guide, inputs, num_samples=num_samples, site=outcome.site)
        chosen = targets.expand(num_samples, *targets.shape).unsqueeze(-1)
        log_probs = draws.log_probs.gather(-1, chosen).squeeze(-1)  # (draws, rows, time)
        per_token.append(log_probs.logsumexp(0) - math.log(num_samples))
        joint.append(log_probs.sum(-1).logsumexp(0) - math.log(num_samples))
    return torch.cat(per_token), torch.cat(joint)


def _is_outcome(site: dict[str, Any]) -> bool:
    return not any(mark in site["infer"] for mark in _NO_OUTCOME)
