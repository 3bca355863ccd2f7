"""The groups of an export, gathered with their dimensions, labels and meanings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.diagnostics.export._arviz import ArviZData
from pyro_vdn.diagnostics.export._dimensions import layer_variable
from pyro_vdn.diagnostics.export._drawn_groups import Group
from pyro_vdn.diagnostics.export._request import EXPORT_GROUPS, Request
from pyro_vdn.diagnostics.export.arrays_to_arviz import arrays_to_arviz
from pyro_vdn.diagnostics.units.latent_usage import latent_usage
from pyro_vdn.diagnostics.units.statistics import UnitStatistics
from pyro_vdn.errors import InputError

_CAUTION = (
    "the neurons are local to each row, so that leaving a row out changes its own draws most: "
    "PSIS-LOO and WAIC on this are unreliable; compare models by the marginal density of rows "
    "held out"
)
_IF_BLIND = (
    "it is log p(y | x) only where the guide does not see y; where it does, this is far too high: "
    "use importance_evidence"
)
_OF_LATENTS = ("posterior", "prior")
_MEANINGS = {
    "posterior": "z, and loc and scale of the posterior it was drawn from, given the draws before",
    "posterior_predictive": "outcomes given the draws of the group posterior",
    "prior": "the same of the prior: the model run alone",
    "prior_predictive": "outcomes given the draws of the group prior",
    "unit_stats": "averages over all rows; see pyro_vdn.diagnostics.UnitStatistics",
    "layer_stats": "kl is the sum over units, the others are means over units",
}


class Export:
    """Groups of an export.

    Args:
        request: What was asked for.
        coords: Labels by dimension, of all rows and units.

    Raises:
        InputError: For labels of no dimension.
    """

    def __init__(self, request: Request, coords: Mapping[str, ArrayLike]) -> None:
        self.request = request
        self.groups: dict[str, dict[str, Any]] = {}
        self.dims: dict[str, dict[str, tuple[str, ...]]] = {}
        self.coords = {name: np.asarray(labels) for name, labels in coords.items()}
        self.attrs: dict[str, dict[str, Any]] = {}
        self._check_coords()

    def add(
        self, group: str, variables: Mapping[str, Any], dims: Mapping[str, Sequence[str]]
    ) -> None:
        """Add a group, if there is anything in it."""
        if variables:
            self.groups[group] = dict(variables)
            self.dims[group] = {name: tuple(dims[name]) for name in variables}
            if group in _MEANINGS:
                self.attrs[group] = {"meaning": _MEANINGS[group]}

    def add_drawn(self, name: str, group: Group) -> None:
        """Add a group of draws."""
        self.add(name, group.variables, group.dims)
        if name == "log_likelihood" and group.variables:
            meaning = "conditional: log p(y | z_s), given the draws of the group posterior"
            self.attrs[name] = {"meaning": meaning, "caution": _CAUTION}

    def add_marginal(
        self, per_output: Tensor | None, joint: Tensor, *, how: str, groups: Collection[str]
    ) -> None:
        """Add predictive log densities as a log-likelihood of one draw, or as they are."""
        site, dims = self.request.site, self.request.schema.outcome.dims
        meaning = f"marginal: log density of y, averaged over the guide's draws, {how}; {_IF_BLIND}"
        if per_output is not None and len(dims) < per_output.dim():
            per_output = per_output.squeeze(-1)
        for group in groups:
            single = group == "log_likelihood"
            names = (site, f"{site}_row") if single else ("log_density", "log_density_joint")
            several = per_output is None or per_output[0].numel() > 1
            found = {}
            if per_output is not None:
                found[names[0]] = per_output[None] if single else per_output
            if several or not single:
                found[names[1]] = joint[None] if single else joint
            self.add(group, found, {names[0]: dims, names[1]: dims[:1]})
            self.attrs[group] = {"meaning": meaning}
            if single:
                self.attrs[group]["caution"] = (
                    "a single draw, whose sum over held-out rows is their log score: nothing is "
                    "left for PSIS-LOO to reweight"
                )

    def add_constants(self, more: Mapping[str, Tensor]) -> None:
        """Add the inputs, and what else is known of each row."""
        schema, total = self.request.schema, self.request.total
        inputs = dict(zip(schema.inputs, self.request.inputs, strict=True))
        dims = dict(schema.inputs)
        for name, values in more.items():
            if values.dim() == 0 or len(values) != total or name in inputs:
                raise InputError(
                    f"constant_data[{name!r}]",
                    expected=f"{total} rows, under a name other than {list(inputs)}",
                    got=f"shape {tuple(values.shape)}",
                    hint="one entry per row of the data",
                )
            rest = (f"{name}_dim_{place}" for place in range(values.dim() - 1))
            dims[name] = (schema.row, *rest)
        self.add("constant_data", {**inputs, **more}, dims)

    def add_units(self, wanted: Collection[str], statistics: Mapping[str, UnitStatistics]) -> None:
        """Add statistics of units and of layers."""
        schema = self.request.schema
        variables: dict[str, Any] = {}
        dims: dict[str, tuple[str, ...]] = {}
        for path, units in statistics.items():
            for name, values in units.to_arrays().items():
                variables[layer_variable(path, name)] = values
                dims[layer_variable(path, name)] = (schema.layers[path].unit,)
        if "unit_stats" in wanted:
            self.add("unit_stats", variables, dims)
        if "layer_stats" in wanted:
            self._add_layers(statistics)

    def _add_layers(self, statistics: Mapping[str, UnitStatistics]) -> None:
        layer = self.request.schema.layer
        usage = latent_usage(statistics)
        names = ("units", "kl", "kl_per_unit", "mu2", "scale", "active_share", "contraction")
        found = {name: np.array([getattr(row, name) for row in usage.values()]) for name in names}
        self.add("layer_stats", found, dict.fromkeys(found, (layer,)))
        self.coords.setdefault(layer, np.array(list(usage)))

    def build(self, attrs: Mapping[str, Any]) -> ArviZData:
        """Return the ArviZ data of all groups that were added."""
        groups = {name: self.groups[name] for name in EXPORT_GROUPS if name in self.groups}
        return arrays_to_arviz(
            groups,
            dims={name: self.dims[name] for name in groups},
            coords={name: self._labels(name) for name in groups},
            attrs={**attrs, **{name: self.attrs[name] for name in groups if name in self.attrs}},
        )

    def _labels(self, group: str) -> dict[str, ArrayLike]:
        """Return the labels of a group's dimensions, of those that have any."""
        schema, labels = self.request.schema, dict(self.coords)
        time, scored = schema.names["time"], f"scored_{schema.names['time']}"
        if scored in schema.outcome.dims and schema.steps is not None:
            last = schema.outcome.sizes[schema.outcome.dims.index(scored)]
            steps = labels.get(time, np.arange(schema.steps))
            labels.setdefault(scored, steps[-last:])
        if group in _OF_LATENTS:
            for dim, (chosen, count) in self._chosen().items():
                labels[dim] = labels.get(dim, np.arange(count))[chosen]
        present = {dim for dims in self.dims[group].values() for dim in dims}
        return {dim: labels[dim] for dim in labels if dim in present}

    def _chosen(self) -> dict[str, tuple[Any, int]]:
        """Return which rows and units are stored of latent sites, and of how many, by dimension."""
        request, chosen = self.request, {}
        if request.rows is not None:
            chosen[request.schema.row] = request.rows.numpy(), request.total
        for path, units in request.units.items():
            layer = request.schema.layers[path]
            if units is not None:
                chosen[layer.unit] = units.numpy(), layer.num_units
        return chosen

    def _check_coords(self) -> None:
        schema = self.request.schema
        sizes = {schema.row: self.request.total}
        sizes |= {layer.unit: layer.num_units for layer in schema.layers.values()}
        for dim, labels in self.coords.items():
            if dim not in schema.all_dims():
                raise InputError(
                    "coords",
                    expected=f"labels of dimensions among {sorted(schema.all_dims())}",
                    got=repr(dim),
                    hint="correct the spelling; dim_names renames dimensions",
                )
            if len(labels) != sizes.get(dim, len(labels)):
                raise InputError(
                    f"coords[{dim!r}]",
                    expected=f"{sizes[dim]} labels, one for each of all",
                    got=f"{len(labels)}",
                    hint="label all rows and units, also those that are not chosen",
                )
