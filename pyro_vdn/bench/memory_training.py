"""Training and scoring the methods of the memory benchmark."""

from __future__ import annotations

import math
import statistics
import time

import torch
from torch import Generator, Tensor, nn

from pyro_vdn.bench.memory_data import Setting, with_missing
from pyro_vdn.bench.memory_methods import MemoryRecipe, Method, build
from pyro_vdn.bench.memory_model import SequenceNet
from pyro_vdn.datasets import Sequences, SequenceSplits
from pyro_vdn.diagnostics import crps_normal
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.infer import PACmELBO
from pyro_vdn.infer.pacm_elbo import integrate_read
from pyro_vdn.infer.single_pass import Program, run_single_pass
from pyro_vdn.nn import AutoregressiveNormal
from pyro_vdn.nn.integrated import Integrated


def train_method(
    method: Method,
    setting: Setting,
    parts: SequenceSplits,
    recipe: MemoryRecipe,
    missing: str,
    seed: int,
) -> tuple[Program, dict[str, float]]:
    """Train a method and return its program with the weights that validated best.

    Args:
        method: The method.
        setting: How the series is cut.
        parts: Its sequences.
        recipe: Hyper-parameters.
        missing: What is missing in training and validation, anew in every batch.
        seed: Seed of weights, batches and what is missing in training.

    Returns:
        The program, and facts of the training by name.
    """
    net, program = build(method, setting, recipe, seed)
    loss, guide = PACmELBO(closed_form=not method.deterministic), NeuronGuide(program)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=recipe.max_steps + 1, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(seed)
    best, weights, start = math.inf, net.state_dict(), time.perf_counter()
    for step in range(1, recipe.max_steps + 1):
        x, y = _batch(parts, recipe.batch_size, missing, generator)
        optimizer.zero_grad()
        value = loss.differentiable_loss(program, guide, x, y) / y.isfinite().sum()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % max(1, recipe.max_steps // recipe.evaluations) == 0:
            validation = score(program, parts.validation, missing, parts.context)["joint_nll"]
            if validation < best:
                best = validation
                weights = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(weights)
    facts = {
        "validation_nll": best,
        "parameters": float(sum(value.numel() for value in net.parameters())),
        "train_seconds": time.perf_counter() - start,
    }
    return program, facts | _persistence(net)


def _batch(parts: SequenceSplits, size: int, missing: str, generator: Generator) -> Sequences:
    chosen = torch.randint(len(parts.train.x), (size,), generator=generator)
    rows = Sequences(parts.train.x[chosen], parts.train.y[chosen])
    return with_missing(rows, missing, parts.context, generator)


def _persistence(net: SequenceNet) -> dict[str, float]:
    """Return the median of what a unit correlates with itself one step earlier, a priori."""
    if not isinstance(net.neurons.prior, AutoregressiveNormal):
        return {}
    first, second = net.neurons.prior.coefficients().detach().unbind(-1)
    return {"prior_correlation": statistics.median((first / (1 - second)).tolist())}


@torch.no_grad()
def score(program: Program, sequences: Sequences, missing: str, context: int) -> dict[str, float]:
    """Score the forecasts after all windows but those of the context.

    Args:
        program: The program.
        sequences: Sequences of one part.
        missing: What is missing; the same windows at every call.
        context: Windows at the start that are not scored.

    Returns:
        Negative log joint density per step of the horizon in nats, CRPS averaged over the horizon
        (both in standard units; exact, as every prediction is normal), each over all windows, over
        those after a missing and after a present window; and the share of the predictive variance
        that comes from the neurons.
    """
    x, y = with_missing(sequences, missing, context, torch.Generator().manual_seed(0))
    predicted = _predicted(program, x)
    target = y.nan_to_num()
    nll = -predicted.joint().log_prob(target) / y.shape[-1]
    spread = predicted.variance.sqrt()
    crps = crps_normal(predicted.mean, spread, target).mean(-1)
    scored, gone = ~y.isnan().any(-1), x.isnan().any(-1)
    result = {
        "joint_nll": float(nll[scored].mean()),
        "crps": float(crps[scored].mean()),
        "neuron_share": _neuron_share(predicted, scored),
    }
    for name, where in (("missing", scored & gone), ("present", scored & ~gone)):
        if bool(where.any()):
            result[f"joint_nll_{name}"] = float(nll[where].mean())
            result[f"crps_{name}"] = float(crps[where].mean())
    return result


def _predicted(program: Program, x: Tensor) -> Integrated:
    """Return the predictive distribution of every step, its neurons integrated out."""
    run = run_single_pass(program, NeuronGuide(program), (x,), {})
    outcome = next(site for site in run.others if site.name == "y")
    predicted = integrate_read(run, outcome)
    assert predicted is not None  # the readout is linear and the likelihood normal
    return predicted


def _neuron_share(predicted: Integrated, scored: Tensor) -> float:
    share = predicted.moments.output_variance / predicted.variance
    return float(share[scored].mean())
