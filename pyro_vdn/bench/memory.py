"""Benchmark: does memory help on real series, with windows in sequence and windows missing?"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyro
import torch
from torch import Generator, Tensor, nn

from pyro_vdn.bench.memory_data import (
    COMPLETE,
    DROPPED,
    EITHER,
    GAP,
    SETTINGS,
    Setting,
    with_missing,
)
from pyro_vdn.bench.memory_model import SequenceNet
from pyro_vdn.bench.results import environment
from pyro_vdn.datasets import Sequences, SequenceSplits
from pyro_vdn.diagnostics import crps_normal
from pyro_vdn.guides import FilteringPosterior, NeuronGuide
from pyro_vdn.infer import PACmELBO
from pyro_vdn.infer.pacm_elbo import integrate_read
from pyro_vdn.infer.single_pass import Program, run_single_pass
from pyro_vdn.nn import AutoregressiveNormal, NormalPosterior, StandardNormal
from pyro_vdn.nn.integrated import Integrated
from pyro_vdn.poutine import deterministic, kl_weight


@dataclass(frozen=True)
class Method:
    """A configuration of the network.

    Args:
        name: What tables call it.
        remembers: Whether the neurons have an autoregressive prior and a filtering posterior.
        masked: Whether neurons follow their prior where a window is missing; else they read the
            window carried forward, with its flag and age.
        deterministic: Whether the neurons are points.
        recurrent: Whether a GRU stands before the neurons.

    Example:
        >>> METHODS[0].name
        'memory on'
    """

    name: str
    remembers: bool = False
    masked: bool = False
    deterministic: bool = False
    recurrent: bool = False


ON = "memory on"
METHODS = (
    Method(ON, remembers=True, masked=True),
    Method("memory off", masked=True),
    Method("memory off, carried forward"),
    Method("points, carried forward", deterministic=True),
    Method("GRU before points, carried forward", deterministic=True, recurrent=True),
    Method("GRU before neurons without memory, carried forward", recurrent=True),
)


@dataclass(frozen=True)
class MemoryRecipe:
    """Hyper-parameters of all methods on a series; chosen by validation scores.

    Args:
        hidden: Size of the encoder's output.
        recurrent_hidden: The same with a GRU, for about as many parameters.
        num_units: Number of neurons.
        decays: Smallest and largest decay per step of the prior's oscillations, at the start.
        periods: Their shortest and longest period at the start, in steps.
        kl: KL weight.
        rate: Largest learning rate.
        decay: Weight decay.
        batch_size: Sequences per step.
        max_steps: Gradient steps.
        evaluations: How often validation scores are taken; the best weights are kept.

    Example:
        >>> MemoryRecipe().with_steps(7).max_steps
        7
    """

    hidden: int = 48
    recurrent_hidden: int = 16
    num_units: int = 16
    decays: tuple[float, float] = (0.7, 0.99)
    periods: tuple[float, float] = (4.0, 80.0)
    kl: float = 1e-3
    rate: float = 1e-2
    decay: float = 1e-4
    batch_size: int = 16
    max_steps: int = 400
    evaluations: int = 5

    def with_steps(self, max_steps: int) -> MemoryRecipe:
        """Return the recipe with another number of steps."""
        return replace(self, max_steps=max_steps)

    def prior(self) -> AutoregressiveNormal:
        """Return the prior of neurons that remember: of order 2, damped oscillations."""
        decays = torch.linspace(*self.decays, self.num_units)
        shortest, longest = (math.log10(period) for period in self.periods)
        periods = torch.logspace(shortest, longest, self.num_units)
        phi = torch.stack([2 * decays * torch.cos(2 * math.pi / periods), -decays.square()], -1)
        return AutoregressiveNormal(self.num_units, phi=phi, order=2)


NAMES = tuple(setting.name for setting in SETTINGS)
RECIPES = {
    "etth1-day": MemoryRecipe(recurrent_hidden=18),
    "etth1-quarter": MemoryRecipe(recurrent_hidden=16),
    "co2": MemoryRecipe(recurrent_hidden=16),
}


@dataclass(frozen=True)
class Regime:
    """What is missing in training and in test.

    Args:
        name: What tables call it.
        trained: What is missing in training and validation.
        tested: What is missing in test.

    Example:
        >>> len({regime.trained for regime in REGIMES})
        2
    """

    name: str
    trained: str
    tested: str


REGIMES = (
    Regime(COMPLETE, COMPLETE, COMPLETE),
    Regime("30 % dropped at test only", COMPLETE, DROPPED),
    Regime(DROPPED, EITHER, DROPPED),
    Regime(GAP, EITHER, GAP),
)


def bench_memory(
    *,
    data: Sequence[str] = NAMES,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    max_steps: int | None = None,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train and score one network with memory on and off, complete and with windows missing.

    All methods have the same objective (the joint predictive density of each window's horizon, in
    closed form), batches, missing windows and, within a few per cent, parameters. The windows that
    are missing in test are the same for all methods and seeds.

    Args:
        data: Names of `SETTINGS`.
        seeds: Seeds of weights, batches and of what is missing in training.
        max_steps: Gradient steps in place of the recipes'.
        on_run: Called with all results so far after every training.

    Returns:
        ``environment``, ``settings``, ``recipes`` and ``runs``, ready for JSON.
    """
    recipes = {
        name: RECIPES[name] if max_steps is None else RECIPES[name].with_steps(max_steps)
        for name in data
    }
    settings = [setting for setting in SETTINGS if setting.name in data]
    results: dict[str, Any] = {
        "benchmark": "memory",
        "environment": environment(),
        "settings": [asdict(setting) for setting in settings],
        "recipes": {name: asdict(recipe) for name, recipe in recipes.items()},
        "runs": [],
    }
    parts = {setting.name: setting.load() for setting in settings}
    for seed in seeds:
        for setting in settings:
            for runs in _runs(setting, parts[setting.name], recipes[setting.name], seed):
                results["runs"] += runs
                on_run(results)
    return results


def _runs(
    setting: Setting, parts: SequenceSplits, recipe: MemoryRecipe, seed: int
) -> Iterator[list[dict[str, Any]]]:
    for method in METHODS:
        for trained in dict.fromkeys(regime.trained for regime in REGIMES):
            program, facts = train_method(method, setting, parts, recipe, trained, seed)
            yield [
                {
                    "method": method.name,
                    "data": setting.name,
                    "regime": regime.name,
                    "seed": seed,
                    "metrics": facts | score(program, parts.test, regime.tested, parts.context),
                }
                for regime in REGIMES
                if regime.trained == trained
            ]


def build(
    method: Method, setting: Setting, recipe: MemoryRecipe, seed: int
) -> tuple[SequenceNet, Program]:
    """Return the network of a method, and the program that is trained and scored.

    Args:
        method: The method.
        setting: How the series is cut.
        recipe: Sizes.
        seed: Seed of the weights.
    """
    pyro.set_rng_seed(seed)
    posterior: nn.Module = NormalPosterior("input")
    if method.remembers:
        posterior = FilteringPosterior(NormalPosterior("input"), summary_size=0)
    net = SequenceNet(
        setting.window,
        setting.horizon,
        hidden=recipe.recurrent_hidden if method.recurrent else recipe.hidden,
        num_units=recipe.num_units,
        prior=recipe.prior() if method.remembers else StandardNormal(),
        posterior=posterior,
        masked=method.masked,
        recurrent=method.recurrent,
    ).float()
    return net, deterministic(net) if method.deterministic else kl_weight(net, recipe.kl)


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
