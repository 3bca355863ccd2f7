"""Benchmark: do the posteriors over time agree with NUTS, where no posterior is exact?

Two units follow AR(1) chains of 24 steps with known parameters, seen through Student-t noise or as
counts. Every posterior is fitted to fresh series of the model and judged on series that it has
never seen; those that look ahead are also fitted on, to these series, as one does with data.
NUTS draws from the same program. Beside it stand exact marginals, integrated on a grid, which also
say how far NUTS is off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor

from pyro_vdn.bench.marginals import Marginals, distances, exact_marginals
from pyro_vdn.bench.results import environment
from pyro_vdn.bench.seen_chains import fit_steps
from pyro_vdn.bench.small_chains import COUNTS, PHI, SCALE, STUDENT_T, SmallChains, likelihood
from pyro_vdn.guides import (
    FilteringPosterior,
    NeuronGuide,
    SmoothingPosterior,
    StructuredPosterior,
)
from pyro_vdn.guides.markov import MarkovPosterior
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import NormalPosterior

TIME = 24
ROWS = 4
BATCH = 64
STEPS = 1500
DRAWS = 1000
SEED = 7
METHOD = "NUTS"
HERE = "fitted to these series"
UNSEEN = "series never seen"
SUMMARY = 32

Posterior = NormalPosterior | MarkovPosterior
POSTERIORS: Mapping[str, Callable[[], Posterior]] = {
    "factorised": lambda: NormalPosterior("input"),
    "filtering": lambda: FilteringPosterior(NormalPosterior("input"), summary_size=SUMMARY),
    "smoothing": lambda: SmoothingPosterior(NormalPosterior("input"), summary_size=SUMMARY),
    "structured": lambda: StructuredPosterior(NormalPosterior("input")),
}
#: A filter that is fitted to a few series learns them by heart, and what follows with them.
LOOKING_AHEAD = ("smoothing", "structured")


def bench_nuts(
    *,
    steps: int = STEPS,
    draws: int = DRAWS,
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Compare the marginals of every posterior with those of NUTS and with exact ones.

    Args:
        steps: Steps of every fit.
        draws: Draws of NUTS, after 40 % as many of warm-up.
        on_run: Called with all results so far after every run.

    Returns:
        ``environment`` and ``runs``, ready for JSON: distances from NUTS and from exact marginals.
    """
    results: dict[str, Any] = {
        "benchmark": "nuts",
        "environment": environment(),
        "time": TIME,
        "series": ROWS,
        "steps": steps,
        "draws": draws,
        "runs": [],
    }
    for kind in (STUDENT_T, COUNTS):
        study = _Study(kind)
        results["runs"].append(study.sample(draws))
        for name in POSTERIORS:
            for run in study.fit(name, steps):
                results["runs"].append(run)
                on_run(results)
    return results


class _Study:
    """Series of one kind, with their exact marginals and those that NUTS found."""

    def __init__(self, kind: str) -> None:
        pyro.set_rng_seed(SEED)
        self.kind = kind
        self.y = SmallChains(kind, NormalPosterior()).simulate(ROWS, TIME)
        phi, scale = torch.tensor(PHI).double(), torch.tensor(SCALE).double()
        widest = float((scale / (1 - phi.square()).sqrt()).max())
        self.grid = torch.linspace(-7 * widest, 7 * widest, 801).double()
        self.exact = exact_marginals(self._log_likelihood, phi, scale, self.grid)
        self.nuts: Marginals | None = None

    def _log_likelihood(self, grid: Tensor) -> Tensor:
        log_prob: Tensor = likelihood(self.kind, grid).log_prob(self.y.unsqueeze(-1))
        return log_prob

    def sample(self, draws: int) -> dict[str, Any]:
        """Run NUTS on the program."""
        pyro.set_rng_seed(SEED)
        model = SmallChains(self.kind, NormalPosterior())
        kernel = NUTS(model)
        mcmc = MCMC(kernel, num_samples=draws, warmup_steps=2 * draws // 5, disable_progbar=True)
        start = time.perf_counter()
        mcmc.run(self.y)
        seconds = time.perf_counter() - start
        self.nuts = Marginals.of_draws(mcmc.get_samples()["neurons.z"], self.grid)
        state = mcmc.diagnostics()["neurons.z"]
        return {
            "kind": self.kind,
            "method": METHOD,
            "from_exact": distances(self.nuts, self.exact, self.grid),
            "effective_draws": float(state["n_eff"].min()),
            "r_hat": float(state["r_hat"].max()),
            "seconds": seconds,
        }

    def fit(self, name: str, steps: int) -> list[dict[str, Any]]:
        """Fit a posterior to fresh series and, where it looks ahead, then to the series judged."""
        pyro.set_rng_seed(SEED)
        model = SmallChains(self.kind, POSTERIORS[name]())
        guide, loss = NeuronGuide(model), LocalELBO(max_plate_nesting=4)
        rows = lambda: model.simulate(BATCH, TIME)  # noqa: E731
        fit_steps(model, guide, loss, rows, steps=steps, rate=5e-3)
        runs = [self._judge(model, f"{name}, {UNSEEN}")]
        if name in LOOKING_AHEAD:
            several = LocalELBO(8, max_plate_nesting=4)
            fit_steps(model, guide, several, lambda: self.y, steps=steps, rate=5e-3)
            runs.append(self._judge(model, f"{name}, {HERE}"))
        return runs

    def _judge(self, model: SmallChains, method: str) -> dict[str, Any]:
        assert self.nuts is not None
        found = Marginals.of_normal(model.marginals(self.y), self.grid)
        loss = LocalELBO(50, max_plate_nesting=4)
        losses = [loss.loss(model, NeuronGuide(model), self.y) for _ in range(20)]
        return {
            "kind": self.kind,
            "method": method,
            "elbo": -sum(losses) / (len(losses) * ROWS),
            "from_nuts": distances(found, self.nuts, self.grid),
            "from_exact": distances(found, self.exact, self.grid),
        }
