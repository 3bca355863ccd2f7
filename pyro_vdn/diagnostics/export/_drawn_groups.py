"""Groups of draws, put together chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pyro_vdn.diagnostics.export._dimensions import Layer, Schema, layer_variable
from pyro_vdn.diagnostics.export._request import Request
from pyro_vdn.infer.evaluating import own_noise
from pyro_vdn.infer.joint_draws import Chunk, chunks_of_draws
from pyro_vdn.infer.prediction import draw_log_probs
from pyro_vdn.nn.divergence import is_silent
from pyro_vdn.nn.markov import ChainStep
from pyro_vdn.nn.sites import Message, latent_site
from pyro_vdn.nn.unit_measures import precise
from pyro_vdn.poutine.clamp import Held
from pyro_vdn.poutine.quantities import PriorPasts


@dataclass
class Group:
    """Variables of a group of draws, `(draws, ...)`, with the names of their other dimensions.

    Args:
        num_samples: Number of draws.
        total: Number of rows that are gone through.
        rows: Which of them are kept, `(chosen,)`; None for all.

    Example:
        >>> Group(7, 5).variables
        {}
    """

    num_samples: int
    total: int
    rows: Tensor | None = None
    variables: dict[str, Tensor] = field(default_factory=dict)
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def wants(self, chunk: Chunk) -> bool:
        """Say whether any row of a chunk is kept."""
        return self.rows is None or bool(self._inside(chunk).any())

    def put(
        self, name: str, dims: tuple[str, ...], values: Tensor, chunk: Chunk, *, by_row: bool = True
    ) -> None:
        """Put a chunk of a variable in its place, in memory of the variable's own."""
        values = precise(values).cpu()
        rows = (self.total if self.rows is None else len(self.rows),) if by_row else ()
        inner = values.shape[2:] if by_row else values.shape[1:]
        if name not in self.variables:
            self.dims[name] = dims
            self.variables[name] = values.new_empty((self.num_samples, *rows, *inner))
        place = self.variables[name][chunk.draws]
        if not by_row:
            place.copy_(values)
        elif self.rows is None:
            place[:, chunk.rows] = values
        else:
            inside = self._inside(chunk)
            place[:, inside] = values[:, self.rows[inside] - chunk.rows.start]

    def _inside(self, chunk: Chunk) -> Tensor:
        assert self.rows is not None
        inside: Tensor = (self.rows >= chunk.rows.start) & (self.rows < chunk.rows.stop)
        return inside


@dataclass(frozen=True)
class Drawn:
    """The groups of one pass over all draws and rows.

    Args:
        latents: Latent sites of chosen rows and units.
        outcomes: Outcomes of all rows.
        densities: Log densities of targets given the draws, of all rows.

    Example:
        >>> Drawn(Group(7, 5), Group(7, 5), Group(7, 5)).outcomes.total
        5
    """

    latents: Group
    outcomes: Group
    densities: Group


def draw_groups(
    request: Request,
    *,
    prior: bool = False,
    latents: bool = False,
    outcomes: bool = False,
    densities: bool = False,
) -> Drawn:
    """Draw all rows once and keep what is wanted.

    Args:
        request: What is to be drawn.
        prior: Whether the model runs alone.
        latents: Whether to keep latent sites.
        outcomes: Whether to keep outcomes.
        densities: Whether to keep log densities of the targets.
    """
    if not (outcomes or densities):  # no other rows are needed
        request = _of_rows(request)
    drawn = Drawn(
        *(Group(request.num_samples, request.total, r) for r in (request.rows, None, None))
    )
    with own_noise(_own_seed(request.seed, prior)):
        for chunk in chunks_of_draws(
            request.model,
            None if prior else request.guide,
            request.inputs,
            request.num_samples,
            batch_size=request.batch_size,
            site=request.site,
        ):
            if latents:
                _take_latents(drawn.latents, chunk, request, prior)
            if outcomes:
                _take_outcomes(drawn.outcomes, chunk, request)
            if densities:
                _take_densities(drawn.densities, chunk, request)
    return drawn


def _of_rows(request: Request) -> Request:
    """Return the request of the chosen rows alone."""
    rows = request.rows
    if rows is None:
        return request
    inputs = tuple(value[rows.to(value.device)] for value in request.inputs)
    y = None if request.y is None else request.y[rows.to(request.y.device)]
    return replace(request, inputs=inputs, y=y, rows=None)


def _own_seed(seed: int, prior: bool) -> int:
    """Return a seed for each of the two passes, so that their noise has nothing in common."""
    generator = torch.Generator().manual_seed(seed)
    return int(torch.randint(2**62, (2,), generator=generator)[int(prior)])


def _take_latents(group: Group, chunk: Chunk, request: Request, prior: bool) -> None:
    """Keep neurons with the moments they were drawn from, and other latent sites."""
    schema, latents = request.schema, chunk.values.latents
    wanted = group.wants(chunk)
    for path in request.units:
        layer = schema.layers[path]
        nodes = [latents[name] for name in layer.sites if name in latents]
        by_row = schema.row in layer.layout.dims
        if nodes and (wanted or not by_row):
            _take_layer(group, chunk, path, layer, nodes, request.units[path], prior, by_row)
    for name, layout in schema.others.items():
        node = latents.get(name)
        if node is None or node["infer"].get("is_auxiliary"):
            continue
        by_row = schema.row in layout.dims
        if wanted or not by_row:
            value = layout.kept(node["value"])
            group.put(name, layout.dims, value, chunk, by_row=by_row)


def _take_layer(
    group: Group,
    chunk: Chunk,
    path: str,
    layer: Layer,
    nodes: list[Message],
    units: Tensor | None,
    prior: bool,
    by_row: bool,
) -> None:
    moments = layer_moments(nodes)
    is_point = _is_point(moments)
    # A twin's units are no distributions: they have no prior, and a point has no posterior either.
    if all(is_silent(node["fn"]) for node in nodes) and (prior or is_point):
        return
    found = {latent_site(path): [node["value"] for node in nodes]}
    if moments is not None and not is_point:
        found[layer_variable(path, "loc")] = [loc for loc, _ in moments]
        found[layer_variable(path, "scale")] = [scale for _, scale in moments]
    dims = layer.layout.dims
    at = 1 + dims.index(layer.unit)
    for name, steps in found.items():
        kept = [layer.layout.kept(step) for step in steps]
        # A `pyro.markov` loop has a site per step; time is left of the units.
        value = kept[0] if len(kept) == 1 else torch.cat(kept, at - 1)
        if units is not None:
            value = value.index_select(at, units.to(value.device))
        group.put(name, dims, value, chunk, by_row=by_row)


def has_latents(latents: Mapping[str, Message], schema: Schema) -> bool:
    """Say whether any latent site is a distribution rather than the point of a twin.

    Args:
        latents: Latent sites of a run, by name.
        schema: What is known of the model's sites.
    """
    if any(name in latents for name in schema.others):
        return True
    layers = [[latents[n] for n in layer.sites if n in latents] for layer in schema.layers.values()]
    return any(
        nodes and not (all(is_silent(n["fn"]) for n in nodes) and _is_point(layer_moments(nodes)))
        for nodes in layers
    )


def _is_point(moments: list[tuple[Tensor, Tensor]] | None) -> bool:
    return moments is not None and all(bool((scale == 0).all()) for _, scale in moments)


def layer_moments(nodes: list[Message]) -> list[tuple[Tensor, Tensor]] | None:
    """Return mean and standard deviation of what the units of a layer were drawn from, by site.

    In a loop over time they are those of each step with the earlier ones averaged out.

    Args:
        nodes: Its sites, one or one for each step.

    Returns:
        Pairs of the shape of the values, or None for a distribution that knows no moments.
    """
    pasts, moments = PriorPasts(), []
    for node in nodes:
        fn, shape = node["fn"], node["value"].shape
        free = fn.base_dist if isinstance(fn, Held) else fn
        try:
            if isinstance(free, ChainStep):
                after = pasts.advance(node["name"], free)
                loc, variance = after.mean[..., 0], after.covariance[..., 0, 0]
                if isinstance(fn, Held):
                    loc = torch.where(fn._mask, loc, fn.mean)
                    variance = torch.where(fn._mask, variance, fn.variance)
            else:
                loc, variance = fn.mean, fn.variance
        except NotImplementedError:
            return None
        moments.append((loc.expand(shape), variance.sqrt().expand(shape)))
    return moments


def _take_outcomes(group: Group, chunk: Chunk, request: Request) -> None:
    outcome, layout = chunk.values.outcome, request.schema.outcome
    group.put(request.site, layout.dims, layout.kept(outcome["value"]), chunk)


def _take_densities(group: Group, chunk: Chunk, request: Request) -> None:
    assert request.y is not None
    y = request.y[chunk.rows]
    per_output, joint = draw_log_probs(chunk.values.outcome["fn"], y)
    dims = request.schema.outcome.dims
    if per_output is not None:
        place = per_output.squeeze(-1) if len(dims) < per_output.dim() - 1 else per_output
        group.put(request.site, dims, place, chunk)
    if per_output is None or y[0].numel() > 1:
        group.put(f"{request.site}_row", dims[:1], joint, chunk)
