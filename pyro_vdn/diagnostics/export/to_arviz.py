"""A fitted model as ArviZ data, in one call: `InferenceData` on ArviZ 0.x, `DataTree` on 1.x."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import pyro.poutine
import torch
from numpy.typing import ArrayLike
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_vdn.diagnostics._rows import Batches, Rows
from pyro_vdn.diagnostics.export._arviz import ArviZData
from pyro_vdn.diagnostics.export._dimensions import Schema, outputs_are_rows, read_schema
from pyro_vdn.diagnostics.export._drawn_groups import draw_groups, has_latents
from pyro_vdn.diagnostics.export._export import Export
from pyro_vdn.diagnostics.export._request import (
    OF_PRIOR,
    OF_TARGETS,
    OF_UNITS,
    Request,
    read_data,
    read_groups,
    read_rows,
    read_units,
)
from pyro_vdn.diagnostics.units.measure import random_layers, record_rows
from pyro_vdn.diagnostics.units.statistics import UnitStatistics
from pyro_vdn.errors import InputError
from pyro_vdn.infer.closed_form import has_closed_form
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.joint_draws import Look, draw_jointly, look_at
from pyro_vdn.infer.log_density import log_density as marginal_log_density
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn.divergence import is_silent
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_choice, check_positive
from pyro_vdn.poutine import record

Program = Callable[..., Any]


def to_arviz(
    model: Program,
    guide: Program,
    data: Batches,
    *,
    num_samples: int = 200,
    groups: Collection[str] | None = None,
    rows: Sequence[int] | Tensor | None = None,
    units: Mapping[str, Sequence[int] | None] | Sequence[int] | None = None,
    batch_size: int = 1024,
    seed: int = 0,
    site: str = "y",
    log_likelihood: Literal["conditional", "marginal"] = "conditional",
    dim_names: Mapping[str, str] | None = None,
    coords: Mapping[str, ArrayLike] | None = None,
    constant_data: Mapping[str, Tensor] | None = None,
    statistics: Mapping[str, UnitStatistics] | None = None,
    config: Any = None,
    attrs: Mapping[str, Any] | None = None,
) -> ArviZData:
    """Draw from a fitted model and put everything into ArviZ data with named dimensions.

    Everything is drawn chunk by chunk, without gradients and in evaluation mode: beside the result,
    memory holds some draws of some rows. So 100,000 rows by 1,000 draws fit by asking for what is
    wanted: ``groups=("posterior_predictive",)``, the marginal log-likelihood, or the posterior of a
    few `rows` and `units`.

    ============================ ===================================================================
    group                        holds
    ============================ ===================================================================
    ``posterior``                neurons `z` by the name of their site, ``<layer>.loc`` and
                                 ``<layer>.scale`` of the posterior that each was drawn from, and
                                 other latent sites, from the prior where the guide has none
    ``posterior_predictive``     outcomes, from the same draws
    ``prior``                    the same variables as ``posterior``, of the model run alone
    ``prior_predictive``         outcomes, from these draws
    ``log_likelihood``           of each output; and ``<site>_row`` of a row's outputs together,
                                 where there are several
    ``predictive_density``       marginal log densities, without draws; on request only
    ``observed_data``            targets
    ``constant_data``            inputs, and what `constant_data` adds
    ``unit_stats``               `UnitStatistics` by ``<layer>.<name>``, over all rows
    ``layer_stats``              their sums and means, by layer
    ============================ ===================================================================

    Dimensions are ``row``, ``time`` (``token`` over tokens, ``scored_time`` where a model scores
    its last steps alone), ``output``, ``unit`` and, for neurons of several latent dimensions,
    ``latent`` (``<layer>.unit`` and so on where there are several layers), ``layer``, ``feature``,
    and otherwise the names of the model's plates. Effects wrapped around model and guide are in
    force; a deterministic twin has no posterior and no prior.

    Draws are independent: read them with `arviz.summary(kind="stats")`, since R-hat and effective
    sample size say nothing about them. They follow from `seed` and from how rows and draws are cut:
    another `batch_size` gives other noise of the same distribution. Plots of ArviZ that want one
    outcome per row, such as `plot_ppc_pit` of 1.x, take ``coords={"output": 0}``.

    Args:
        model: A Pyro program, called as ``model(*inputs)``.
        guide: Its guide, of any kind. One made for certain rows, such as an `AutoNormal` of local
            sites, needs them in one batch, and no posterior of chosen `rows` alone.
        data: Inputs before targets, `(x, y)` or `(x_0, x_1, y)`, each `(rows, ...)`; inputs alone,
            `x`, `(x,)` or `(x_0, x_1, None)`; or batches of either, such as a `DataLoader`. Targets
            are `(rows, outputs)`, `(rows, time, outputs)` or, tokens, `(rows, time)`; NaN where a
            model that reads missing values misses one.
        num_samples: Number of draws.
        groups: Which groups; by default all there are, ``predictive_density`` aside.
        rows: Rows of which neurons and other local latent sites are stored; all by default.
        units: Units whose draws are stored: by layer path, their numbers, or None for all of the
            layer (layers that are not named are left out); of a single layer, their numbers.
        batch_size: Most rows at once.
        seed: Seed of all draws; the caller's random state is untouched.
        site: Name of the outcome's site.
        log_likelihood: ``"conditional"`` on the neurons, `log p(y | z_s)` of each draw; or
            ``"marginal"``, averaged over the guide's draws, one number for all. That is the
            predictive density only of a guide that does not see `y`: else `importance_evidence`.
        dim_names: Other names of dimensions, ``{"output": "horizon"}``.
        coords: Labels by (new) dimension name, of all rows and units.
        constant_data: More about each row, `(rows, ...)` by name.
        statistics: Unit statistics where they are known, such as those with downstream use.
        config: Configuration to store as JSON in the attribute ``config``, whatever
            `json.dumps` takes.
        attrs: More attributes: numbers and strings.

    Returns:
        `arviz.InferenceData` on ArviZ 0.x, `xarray.DataTree` on 1.x. Attributes: library and
        version, ``created_at``, ``seed``, ``num_samples``, ``model``, ``config``; and a ``meaning``
        of each group of draws.

    Raises:
        InputError: For data of other shapes or not finite, an unknown group, row, unit, site, name
            or label, a group there is not, or a configuration that JSON cannot hold.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, num_units=4)
        >>> x, y = torch.randn(50, 3), torch.randn(50, 1)
        >>> data = to_arviz(model, NeuronGuide(model), (x, y), rows=[7, 9], units=[0, 3])
        >>> data["posterior"]["neurons.z"].dims
        ('chain', 'draw', 'row', 'unit')
        >>> data["posterior"]["neurons.scale"].sel(row=9, unit=3).shape
        (1, 200)
        >>> data["posterior_predictive"]["y"].shape, data["unit_stats"]["neurons.kl"].shape
        ((1, 200, 50, 1), (4,))
    """
    check_positive(num_samples=num_samples, batch_size=batch_size)
    check_choice("log_likelihood", log_likelihood, ("conditional", "marginal"))
    inputs, y = read_data(data, missing_allowed=reads_missing(model))
    give_own_store(model, guide)
    with evaluating(model, guide), torch.no_grad():
        look = look_at(model, inputs)
        at_once = look.rows_at_once(inputs, batch_size)
        schema = read_schema(look, inputs, y, site=site, dim_names=dim_names)
        absent = _absent(model, guide, inputs, y, schema, look, statistics, site, at_once)
        wanted = read_groups(groups, absent=absent)
        request = Request(
            model=model,
            guide=guide,
            inputs=inputs,
            y=y.unsqueeze(-1)
            if y is not None and outputs_are_rows(look.sites[site], inputs, y)
            else y,
            schema=schema,
            num_samples=num_samples,
            batch_size=at_once,
            seed=seed,
            site=site,
            rows=read_rows(rows, len(inputs[0])),
            units=read_units(units, schema),
        )
        export = Export(request, coords or {})
        _add_drawn(export, wanted, log_likelihood == "conditional")
        if {"log_likelihood", "predictive_density"} & set(wanted):
            _add_marginal(export, wanted, log_likelihood == "marginal")
        if "observed_data" in wanted and y is not None:
            export.add("observed_data", {site: y}, {site: schema.outcome.dims})
        if "constant_data" in wanted:
            export.add_constants(constant_data or {})
        if OF_UNITS & set(wanted):
            export.add_units(wanted, statistics or _unit_statistics(request))
    return export.build({**_attributes(request, config), **(attrs or {})})


def _absent(
    model: Program,
    guide: Program,
    inputs: Sequence[Tensor],
    y: Tensor | None,
    schema: Schema,
    look: Look,
    statistics: Mapping[str, UnitStatistics] | None,
    site: str,
    rows: int,
) -> dict[str, str]:
    """Return the groups there are not, with the reason, as one draw of the first rows shows."""
    absent: dict[str, str] = {}
    if y is None:
        absent |= dict.fromkeys(OF_TARGETS, "there are no targets")
    first = [value[:rows] for value in inputs]
    with own_noise(0), record() as seen:
        drawn = draw_jointly(model, guide, first, 1, site=site, shared=Trace(), look=look)
    if not has_latents(drawn.latents, schema):
        absent["posterior"] = "nothing latent is random in the guide"
    latent = [n for name, n in look.sites.items() if name != site and not n["is_observed"]]
    if all(is_silent(node["fn"]) for node in latent):
        absent |= dict.fromkeys(OF_PRIOR, "nothing latent has a prior")
    if not statistics and not random_layers(seen):
        absent |= dict.fromkeys(OF_UNITS, "no layer has an offered posterior of all its units")
    return absent


def _add_drawn(export: Export, wanted: Sequence[str], conditional: bool) -> None:
    """Draw from the guide and from the prior, and add what is wanted of either."""
    request = export.request
    densities = "log_likelihood" in wanted and conditional
    outcomes, latents = "posterior_predictive" in wanted, "posterior" in wanted
    if latents or outcomes or densities:
        drawn = draw_groups(request, latents=latents, outcomes=outcomes, densities=densities)
        export.add_drawn("posterior", drawn.latents)
        export.add_drawn("posterior_predictive", drawn.outcomes)
        export.add_drawn("log_likelihood", drawn.densities)
    outcomes, latents = "prior_predictive" in wanted, "prior" in wanted
    if latents or outcomes:
        drawn = draw_groups(request, prior=True, latents=latents, outcomes=outcomes)
        export.add_drawn("prior", drawn.latents)
        export.add_drawn("prior_predictive", drawn.outcomes)


def _add_marginal(export: Export, wanted: Sequence[str], as_likelihood: bool) -> None:
    """Add the log densities of targets, averaged over draws."""
    request = export.request
    if not (as_likelihood and "log_likelihood" in wanted) and "predictive_density" not in wanted:
        return
    assert request.y is not None
    with own_noise(request.seed):
        per_output, joint = marginal_log_density(
            request.model,
            request.guide,
            request.inputs,
            request.y,
            num_samples=request.num_samples,
            batch_size=request.batch_size,
            site=request.site,
        )
        first = [value[: request.batch_size] for value in request.inputs]
        exact = has_closed_form(request.model, request.guide, first, site=request.site)
    export.add_marginal(
        per_output,
        joint,
        how="in closed form or by matched moments"
        if exact
        else f"of a mixture of {request.num_samples} draws",
        groups=[
            *(["log_likelihood"] if as_likelihood and "log_likelihood" in wanted else []),
            *(["predictive_density"] if "predictive_density" in wanted else []),
        ],
    )


def _unit_statistics(request: Request) -> dict[str, UnitStatistics]:
    """Measure the units of the layers that are random, over all rows."""
    size = request.batch_size
    batches = [
        (*(value[start : start + size] for value in request.inputs), None)
        for start in range(0, request.total, size)
    ]
    rows = Rows(batches, targets=False, missing_allowed=reads_missing(request.model))
    seen = record_rows(request.model, request.guide, rows, seed=request.seed)
    return {path: UnitStatistics.of(layer) for path, layer in random_layers(seen).items()}


def _attributes(request: Request, config: Any) -> dict[str, Any]:
    attributes = {
        "seed": request.seed,
        "num_samples": request.num_samples,
        "model": type(pyro.poutine.unwrap(request.model)).__name__,
    }
    if config is None:
        return attributes
    try:
        return {**attributes, "config": json.dumps(config)}
    except (TypeError, ValueError) as error:
        raise InputError(
            "config",
            expected="what JSON can hold: dictionaries, lists, numbers, strings",
            got=f"{type(config).__name__} ({error})",
            hint="config=run_config.to_dict(), or dataclasses.asdict(...)",
        ) from error
