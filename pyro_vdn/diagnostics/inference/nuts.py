"""A variational posterior against NUTS, on models that are small enough for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyro
import pyro.poutine
import torch
from pyro.distributions import Delta, MaskedDistribution
from pyro.infer import MCMC, NUTS
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vdn.diagnostics.inference.nuts_comparison import NutsComparison, SiteComparison
from pyro_vdn.errors import InputError
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.plates import guess_max_plate_nesting
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.nn.sites import DRAWS
from pyro_vdn.poutine.dropout import DroppedOut


class _Chains(NamedTuple):
    """Draws by site, `(chains, draws, *site)`, and the number of divergent moves."""

    draws: dict[str, Tensor]
    divergences: int


def compare_with_nuts(
    model: Program,
    guide: Program,
    *args: Any,
    num_samples: int = 500,
    warmup: int = 300,
    num_chains: int = 2,
    num_draws: int = 2000,
    max_latents: int = 300,
    max_tree_depth: int = 10,
    seed: int = 0,
    **kwargs: Any,
) -> NutsComparison:
    """Compare the marginals of a guide with those of NUTS on the same model and data.

    NUTS samples every latent number of the model jointly, so it suits small models and few rows: a
    layer of 4 neurons over 10 rows has 40. It converges to the posterior, but has an error of its
    own, which every figure is given with. Chains run one after the other.

    Args:
        model: A Pyro program with neurons, called with `args` and `kwargs`, targets included.
        guide: Its guide, such as `NeuronGuide`.
        *args: Positional arguments of both.
        num_samples: Draws of NUTS per chain, at least 4.
        warmup: Steps of warm-up per chain.
        num_chains: Number of chains; two or more show whether they agree.
        num_draws: Draws of the guide.
        max_latents: Most latent numbers that are accepted.
        max_tree_depth: Most doublings of a trajectory.
        seed: Seed of all draws; the caller's random state is untouched.
        **kwargs: Keyword arguments of both.

    Returns:
        For every latent number: difference of means, ratio of standard deviations and Wasserstein
        distance.

    Raises:
        InputError: For too many latent numbers or none, discrete ones, fixed or held units, weights
            on a site's density, or a guide that does not draw all that is latent.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.testing import ConjugateNeurons
        >>> model = ConjugateNeurons(torch.tensor([[1.0]]), torch.zeros(1), 0.5)
        >>> model.set_exact_()
        >>> options = {"num_samples": 20, "warmup": 10, "num_chains": 1}
        >>> found = compare_with_nuts(model, NeuronGuide(model), torch.zeros(1, 1), **options)
        >>> found["neurons.z"].scale_ratio.shape
        torch.Size([1, 1])

    Source: Hoffman and Gelman, *The No-U-Turn Sampler*, JMLR 2014.
    """
    check_positive(num_draws=num_draws, num_chains=num_chains, warmup=warmup)
    if num_samples < 4:
        raise InputError(
            "num_samples", expected="at least 4", got=str(num_samples), hint="num_samples=500"
        )
    give_own_store(model, guide)
    with own_noise(seed), evaluating(model, guide):
        shapes = _latent_shapes(model, args, kwargs, max_latents)
        chains = _run_chains(
            model, args, kwargs, num_samples, warmup, num_chains, max_tree_depth=max_tree_depth
        )
        with torch.no_grad():
            draws = _guide_draws(guide, args, kwargs, shapes, num_draws)
            sites = {name: SiteComparison.of(draws[name], chains.draws[name]) for name in shapes}
    return NutsComparison(sites, chains.divergences)


def _latent_shapes(
    model: Program, args: Sequence[Any], kwargs: Mapping[str, Any], most: int
) -> dict[str, torch.Size]:
    """Return the shape of every latent site, if NUTS can draw them."""
    with torch.no_grad():
        trace = pyro.poutine.trace(model).get_trace(*args, **kwargs)
    shapes = {}
    for name in [*trace.stochastic_nodes, *trace.observation_nodes]:
        site = trace.nodes[name]
        if site_is_subsample(site):
            continue
        _check_site(site)
        if not site["is_observed"]:
            shapes[name] = site["value"].shape
    count = sum(shape.numel() for shape in shapes.values())
    if not 0 < count <= most:
        raise InputError(
            "model",
            expected=f"1 to {most} latent numbers (max_latents)",
            got=f"{count}" if count else "none, or no outcome that is observed",
            hint="pass fewer rows, or a smaller model of the same kind",
        )
    return shapes


def _check_site(site: Mapping[str, Any]) -> None:
    what = f"site '{site['name']}'"
    if not (isinstance(site["scale"], (int, float)) and site["scale"] == 1):
        raise InputError(
            what,
            expected="a density of weight 1",
            got="one that an effect or a subsample scales",
            hint="compare the model itself, without kl_weight, on all rows of its data",
        )
    if site["is_observed"]:
        return
    if _is_held(site):
        raise InputError(
            what,
            expected="a latent site with a density",
            got="fixed, held, dropped or masked units",
            hint="compare the model itself, without clamp, deterministic, dropout or a mask",
        )
    if site["fn"].support.is_discrete:
        raise InputError(
            what,
            expected="a continuous latent site",
            got=f"a {type(site['fn']).__name__}",
            hint="sum it out in the model's own likelihood",
        )


def _is_held(site: Mapping[str, Any]) -> bool:
    """Say whether some of a site's numbers have no density to be drawn by."""
    mask = site["mask"]
    masked = mask is not None and not bool(torch.as_tensor(mask).all())
    return masked or isinstance(site["fn"], (MaskedDistribution, Delta, DroppedOut))


def _run_chains(
    model: Program,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    num_samples: int,
    warmup: int,
    num_chains: int,
    *,
    max_tree_depth: int,
) -> _Chains:
    parts, divergences = [], 0
    with _quiet(), torch.enable_grad():
        for _ in range(num_chains):
            kernel = NUTS(model, max_tree_depth=max_tree_depth)
            chain = MCMC(kernel, num_samples=num_samples, warmup_steps=warmup, disable_progbar=True)
            chain.run(*args, **kwargs)
            parts.append(chain.get_samples())
            divergences += sum(map(len, chain.diagnostics().get("divergences", {}).values()))
    draws = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
    return _Chains(draws, divergences)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pyro's sampler from writing to the console, which it does through a logger."""
    logger = logging.getLogger("pyro.infer.mcmc")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _guide_draws(
    guide: Program,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    shapes: Mapping[str, torch.Size],
    num_draws: int,
) -> dict[str, Tensor]:
    """Draw all latent sites, `(draws, *site)` each."""
    nesting = guess_max_plate_nesting(guide, args, kwargs)
    nesting = max([nesting, *(len(shape) for shape in shapes.values())])
    with pyro.plate(DRAWS, num_draws, dim=-1 - nesting):
        trace = pyro.poutine.trace(guide).get_trace(*args, **kwargs)
    for name in shapes:
        if name not in trace.nodes:
            raise InputError(
                "guide",
                expected=f"a program that draws {list(shapes)}",
                got=f"one without '{name}'",
                hint="NeuronGuide(model, others=...) draws all that is latent",
            )
    return {
        name: trace.nodes[name]["value"].reshape(num_draws, *shape)
        for name, shape in shapes.items()
    }
