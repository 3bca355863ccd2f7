"""Measure how long the units of a model remember."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vdn.diagnostics._rows import Batches, Rows
from pyro_vdn.diagnostics.units._of_record import memory_of, plain
from pyro_vdn.diagnostics.units.measure import record_rows
from pyro_vdn.diagnostics.units.persistence import Array, UnitPersistence
from pyro_vdn.errors import InputError
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.markov import ChainStep
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.sites import PRIOR, Message, is_neuron, layer_of, step_of
from pyro_vdn.poutine import StreamingMoments

Program = Callable[..., Any]

_MOST_LINES = 12


@dataclass(frozen=True, eq=False)
class PersistenceReport:
    """How long every unit with memory remembers; printed, it is a table.

    Args:
        layers: What was found by layer path.

    Example:
        >>> PersistenceReport({}).to_rows()
        []
    """

    layers: dict[str, UnitPersistence]

    def __getitem__(self, path: str) -> UnitPersistence:
        """Return what was found of the layer at `path`."""
        return self.layers[path]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one plain dictionary per unit."""
        return [
            {"layer": path, **row, "time_unit": units.unit}
            for path, units in self.layers.items()
            for row in units.to_rows()
        ]

    def to_xarray(self) -> Any:
        """Return an `xarray.Dataset` over all units.

        Its dimension is `unit`, with labels `<layer>[<index>]` and further coordinates `layer` and
        `index`; a lag that a layer does not have is NaN. The length of a step and the unit of time
        are attributes, and the latter is one of `half_life`.
        """
        import xarray as xr

        columns = [units.to_arrays() for units in self.layers.values()]
        sizes = [len(units.half_life) for units in self.layers.values()]
        names = dict.fromkeys(name for arrays in columns for name in arrays)
        missing = [np.full(size, np.nan) for size in sizes]
        variables = {
            name: np.concatenate(
                [a.get(name, gap) for a, gap in zip(columns, missing, strict=True)]
            )
            for name in names
        }
        index = [i for size in sizes for i in range(size)]
        layer = [path for path, size in zip(self.layers, sizes, strict=True) for _ in range(size)]
        first = next(iter(self.layers.values()))
        data = xr.Dataset(
            {name: ("unit", values) for name, values in variables.items()},
            coords={
                "unit": [f"{path}[{i}]" for path, i in zip(layer, index, strict=True)],
                "layer": ("unit", layer),
                "index": ("unit", index),
            },
            attrs={"step": first.step, "time_unit": first.unit},
        )
        data["half_life"].attrs["units"] = first.unit
        return data

    def __str__(self) -> str:
        return "\n".join(
            line for path, units in self.layers.items() for line in _table(path, units)
        )


def persistence_report(
    model: Program,
    guide: Program,
    batches: Batches,
    *,
    step: float = 1.0,
    unit: str = "steps",
    seed: int = 0,
) -> PersistenceReport:
    """Measure over a data set how long units remember, under their prior and their posterior.

    One run of the guide over the data. Where the prior's coefficients are latent, those of the
    guide's draws are averaged, one draw a batch.

    Args:
        model: A Pyro program with layers whose prior is a chain over time.
        guide: Its guide, which takes the posteriors that neurons offer, such as `NeuronGuide`.
        batches: Batches `(x, ..., y)` as for :func:`unit_statistics`, or inputs alone.
        step: Length of a step, in `unit`.
        unit: Unit of time in which half-lives are given, such as ``"h"``.
        seed: Seed of the draws; the caller's random state is untouched.

    Returns:
        The report on all layers with memory.

    Raises:
        InputError: If no layer has memory, the sequences are no longer than a layer's order, or
            there are no rows.

    Example:
        >>> import torch
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.nn import AutoregressiveNormal, VariationalNeurons
        >>> prior = AutoregressiveNormal(2, phi=torch.tensor([0.5, 0.9]))
        >>> layer = VariationalNeurons(3, 2, prior=prior)
        >>> found = persistence_report(
        ...     layer, NeuronGuide(layer), torch.randn(8, 20, 3), step=0.25, unit="h"
        ... )
        >>> found[""].half_life.round(2)
        array([0.25, 1.64])
    """
    with _Priors() as priors:
        seen = record_rows(
            model,
            guide,
            Rows(batches, targets=False, missing_allowed=reads_missing(model)),
            seed=seed,
        )
    found = {}
    for path, prior in priors.by_layer.items():
        memory = memory_of(seen[path])
        if memory.carried is None or memory.renewal is None or prior.steps <= prior.order:
            raise InputError(
                "batches",
                expected=f"sequences of more than {max(prior.order, 1)} steps, as layer '{path}' "
                "needs",
                got=f"{prior.steps}",
                hint="x of shape (rows, time, features)",
            )
        found[path] = UnitPersistence.of(
            prior.phi(),
            innovation_scale=plain(prior.scale.mean),
            posterior_carried=memory.carried,
            renewal=memory.renewal,
            step=step,
            unit=unit,
            steps=prior.steps,
        )
    if not found:
        raise InputError(
            "model",
            expected="a layer with memory, whose prior is a chain over time",
            got=f"layers without: {list(seen)}",
            hint="VariationalNeurons(..., prior=AutoregressiveNormal(num_units))",
        )
    return PersistenceReport(found)


class _Prior:
    """The coefficients and innovation scale of a layer's prior, averaged over runs."""

    def __init__(self) -> None:
        self.coefficients, self.scale = StreamingMoments(), StreamingMoments()
        self.order, self.steps = 1, 0

    def take(self, coefficients: Tensor, scale: Tensor, steps: int) -> None:
        """Take in the last step of a run, which follows as many steps as the prior looks back."""
        self.order, self.steps = int(coefficients.shape[-1]), steps
        self.coefficients.update(coefficients[..., -1, :, :].flatten(-2))
        self.scale.update(scale[..., -1, :])

    def phi(self) -> Array:
        """Return the coefficients, `(units, order)`."""
        return plain(self.coefficients.mean).reshape(-1, self.order)


class _Priors(Messenger):
    """Note the prior chain of every layer with memory."""

    def __init__(self) -> None:
        super().__init__()
        self.by_layer: dict[str, _Prior] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        prior = msg["infer"].get(PRIOR) if is_neuron(msg) else None
        path, step = layer_of(msg["name"]), step_of(msg["name"])
        if isinstance(prior, GaussianChain):
            note = self.by_layer.setdefault(path, _Prior())
            note.take(prior.coefficients, prior.scale, int(prior.batch_shape[-2]))
        elif isinstance(prior, ChainStep) and step is not None:
            if step <= prior.on_past.coefficients.shape[-1]:  # the start is no guide to the rest
                self.by_layer[path] = _Prior()
            note = self.by_layer[path]
            note.take(prior.on_past.coefficients, prior.scale, step + 1)


def _table(path: str, units: UnitPersistence) -> list[str]:
    """Return the lines of a layer: a heading, and units in the order of their half-lives."""
    order = np.argsort(units.half_life, kind="stable")
    count = len(order)
    shown = order[np.unique(np.linspace(0, count - 1, min(count, _MOST_LINES)).round().astype(int))]
    most = f"{len(shown)} of {count} units" if len(shown) < count else f"{count} units"
    every = "" if units.unit == "steps" else f"; a step is {units.step:g} {units.unit}"
    lines = [
        f"{path or 'the layer'}: {most} by half-life, in {units.unit}{every}",
        f"  {'unit':>5}  {'phi':<16} {'scale':>8}  {'half-life':>10}  {'carried: prior':>14}  "
        f"{'posterior':>9}  {'renewal':>8}",
    ]
    for i in shown:
        phi = " ".join(f"{value:.4g}" for value in units.phi[i, :2])
        phi += " ..." if units.phi.shape[1] > 2 else ""
        lines.append(
            f"  {i:>5}  {phi:<16} {units.innovation_scale[i]:>8.3g}  {units.half_life[i]:>10.4g}  "
            f"{units.prior_carried[i]:>14.4f}  {units.posterior_carried[i]:>9.4f}  "
            f"{units.renewal[i]:>8.3g}"
        )
    return lines
