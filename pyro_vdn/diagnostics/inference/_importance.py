"""Importance weights of a model with neurons under its guide, per draw and per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyro
import torch
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.plates import common_plate, guess_max_plate_nesting
from pyro_vdn.infer.single_pass import Pass, Program, run_single_pass
from pyro_vdn.infer.site import Site
from pyro_vdn.nn.sites import PARTICLES
from pyro_vdn.poutine.share_noise import SharedDroppedOut, SharedNormal


class LogWeights(NamedTuple):
    """Logarithms of importance weights `p(y, z_s) / q(z_s)`.

    Args:
        total: Of whole draws, `(draws,)`.
        rows: Of each row by itself, `(draws, rows)`; None where rows share a latent site or are
            not in one plate.

    Example:
        >>> LogWeights(torch.zeros(5), torch.zeros(5, 3)).rows.shape
        torch.Size([5, 3])
    """

    total: Tensor
    rows: Tensor | None


def log_weights(
    model: Program,
    guide: Program,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    num_samples: int,
    chunk_size: int,
) -> LogWeights:
    """Draw from a guide and return the log importance weights, in float64.

    Weights on the KL and penalties are left out: every site counts as often as the model says.

    Args:
        model: A Pyro program with neurons.
        guide: Its guide.
        args: Positional arguments of both.
        kwargs: Keyword arguments of both.
        num_samples: Number of draws.
        chunk_size: Draws that are held at once.

    Raises:
        InputError: For a model that observes nothing, a subsample, sites that a loss enumerates,
            draws that are not independent over rows, or densities that are no numbers.
    """
    nesting = guess_max_plate_nesting(model, args, kwargs)
    parts = []
    for start in range(0, num_samples, chunk_size):
        size = min(chunk_size, num_samples - start)
        run = run_draws(model, guide, args, kwargs, num_draws=size, nesting=nesting)
        parts.append(weigh(run, size))
    rows = [part.rows for part in parts if part.rows is not None]
    total = torch.cat([part.total for part in parts])
    return LogWeights(total, torch.cat(rows) if rows else None)


def run_draws(
    model: Program,
    guide: Program,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    num_draws: int,
    nesting: int,
) -> Pass:
    """Run a model once for several draws, which stand left of its `nesting` plates."""
    with pyro.plate(PARTICLES, num_draws, dim=-1 - nesting):
        return run_single_pass(model, guide, tuple(args), dict(kwargs))


def weigh(
    run: Pass, draws: int, density: Callable[[Site], Any] = lambda site: site.fn
) -> LogWeights:
    """Sum the log ratios of all sites of a run, with a gradient where there is one.

    Args:
        run: A run of `draws` draws.
        draws: Their number.
        density: From a neuron's site to the posterior under which its draws are weighed.
    """
    _check_run(run)
    observed = [site for site in (*run.observed, *run.local) if not _is_statement(site)]
    frame = _shared_plate(observed, run)
    device = observed[0].value.device
    total = torch.zeros(draws, dtype=torch.float64, device=device)
    rows = None
    if frame is not None:
        rows = torch.zeros(draws, frame.size, dtype=torch.float64, device=device)
    for name, ratio in _ratios(run, observed, density):
        ratio = ratio.double()
        if rows is not None and frame is not None:
            per_row = ratio.movedim((0, frame.dim), (0, 1)).flatten(1).reshape(*rows.shape, -1)
            rows = rows + per_row.sum(-1)
        total = total + ratio.reshape(draws, -1).sum(-1)
        _check_numbers(name, total)
    return LogWeights(total, rows)


def _ratios(
    run: Pass, observed: Sequence[Site], density: Callable[[Site], Any]
) -> Iterator[tuple[str, Tensor]]:
    """Yield each site's share of `log p - log q`, of its whole batch shape, draws first."""
    for site in observed:
        yield site.name, _whole(site, site.fn.log_prob(site.value))
    for site in run.neurons:
        assert site.prior is not None
        ratio = site.prior.log_prob(site.value) - density(site).log_prob(site.value)
        yield site.name, _whole(site, ratio)
    for site in run.others:
        if site.name in run.drawn.nodes:
            yield site.name, _whole(site, site.fn.log_prob(site.value))
    for site in _drawn(run):  # with auxiliary ones, which carry the density of an autoguide
        yield site.name, -_whole(site, site.fn.log_prob(site.value))


def _drawn(run: Pass) -> Iterator[Site]:
    """Yield the sites of the second guide."""
    for name, node in run.drawn.nodes.items():
        if site_is_subsample(node):
            continue
        plates = node["cond_indep_stack"]
        yield Site(name, node["value"], node["fn"], None, 1.0, node["mask"], node["infer"], plates)


def _whole(site: Site, values: Tensor) -> Tensor:
    """Apply masks and no weight, and expand to the batch shape; what is replayed may exceed it."""
    natural = site.natural(values)
    shape: Any = torch.broadcast_shapes(natural.shape, site.batch_shape)  # type: ignore[no-untyped-call]
    return natural.expand(shape)


def _shared_plate(observed: Sequence[Site], run: Pass) -> CondIndepStackFrame | None:
    """Return the outermost plate of all observations, where all that is latent stands in it too."""
    plate = common_plate(site.plates for site in observed)
    if plate is None:
        return None
    others = [site for site in run.others if not site.is_fixed]
    latent = [*run.neurons, *others, *_drawn(run)]
    inside = all(plate.name in {frame.name for frame in site.plates} for site in latent)
    return plate if inside else None


def _is_statement(site: Site) -> bool:
    return bool(site.infer.get("_deterministic"))


def _check_run(run: Pass) -> None:
    sites = [*run.neurons, *run.observed, *run.local, *run.others]
    if not any(not _is_statement(site) for site in run.observed):
        raise InputError(
            "model",
            expected="an observation",
            got=f"latent sites alone: {[site.name for site in sites]}",
            hint="pass the targets too, as in importance_evidence(model, guide, x, y)",
        )
    for site in (*sites, *_drawn(run)):
        _check_site(site)


def _check_site(site: Site) -> None:
    if site.infer.get("enumerate") == "parallel":
        raise InputError(
            f"site '{site.name}'",
            expected="a site that is drawn",
            got='one that a loss sums out (infer={"enumerate": "parallel"})',
            hint="drop the mark, so that it is drawn from its prior, or sum it out in the model's "
            "own likelihood",
        )
    if any((frame.full_size or frame.size) != frame.size for frame in site.plates):
        raise InputError(
            f"site '{site.name}'",
            expected="all rows of its plate",
            got="a subsample",
            hint="pass the whole data set, in parts that are data sets of their own",
        )
    if isinstance(_leaf(site.fn), (SharedNormal, SharedDroppedOut)):
        raise InputError(
            f"site '{site.name}'",
            expected="draws that are independent under the posterior's density",
            got="noise that tokens share",
            hint="evaluate the model without share_noise",
        )


def _leaf(distribution: Any) -> Any:
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def _check_numbers(name: str, total: Tensor) -> None:
    bad = torch.isnan(total) | torch.isposinf(total)
    if bool(bad.any()):
        raise InputError(
            f"site '{name}'",
            expected="log densities of prior, posterior and likelihood that are numbers",
            got=f"{float(total[bad][0])} in {int(bad.sum())} of {len(total)} draws",
            hint="put floors under scales, and evaluate without an effect that makes a posterior a "
            "point",
        )
