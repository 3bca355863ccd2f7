"""The names of dimensions, read off the plates that a model's sites stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyro.distributions as dist
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.joint_draws import Look
from pyro_vdn.nn.sites import Message, is_neuron, layer_of, step_of

NAMES = ("row", "time", "output", "unit", "latent", "layer", "feature")
"""What dimensions are called where nothing else is asked for; time over tokens is ``"token"``."""


class Layout(NamedTuple):
    """How values of a site are stored, their draws aside.

    Args:
        dims: Names of the dimensions that are kept.
        places: Where each is in a value, counted from the right.
        sizes: How long each was in the run that was looked at.

    Example:
        >>> import torch
        >>> Layout(("row", "unit"), (-2, -1), (5, 4)).kept(torch.zeros(7, 1, 5, 4)).shape
        torch.Size([7, 5, 4])
    """

    dims: tuple[str, ...]
    places: tuple[int, ...]
    sizes: tuple[int, ...]

    def kept(self, value: Tensor) -> Tensor:
        """Return draws without the places of plates that a site is not in, `(draws, *dims)`."""
        kept = {value.dim() + place for place in self.places}
        return value.squeeze([at for at in range(1, value.dim()) if at not in kept])


@dataclass(frozen=True)
class Layer:
    """The sites of a layer of neurons.

    Args:
        sites: Their names: one, or one for each step.
        layout: How the units of all steps are stored.
        unit: Name of the dimension of units.
        num_units: Their number.

    Example:
        >>> Layer(("z",), Layout(("row", "unit"), (-2, -1), (5, 4)), "unit", 4).num_units
        4
    """

    sites: tuple[str, ...]
    layout: Layout
    unit: str
    num_units: int


@dataclass
class Schema:
    """The dimensions of all that is stored of a model.

    Args:
        outcome: How outcomes are stored.
        names: What the dimensions of `NAMES` are called.
        steps: Number of steps where rows are sequences, else None.
        layers: Layers of neurons by path.
        others: How other sites are stored, by name.
        inputs: Names of inputs, with those of their dimensions.

    Example:
        >>> Schema(Layout(("row", "output"), (-2, -1), (1, 1)), {}).layers
        {}
    """

    outcome: Layout
    names: dict[str, str]
    steps: int | None = None
    layers: dict[str, Layer] = field(default_factory=dict)
    others: dict[str, Layout] = field(default_factory=dict)
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def layer(self) -> str:
        """Name of the dimension of layers."""
        return self.names["layer"]

    @property
    def row(self) -> str:
        """Name of the dimension of rows."""
        return self.names["row"]

    def all_dims(self) -> set[str]:
        """Return the names of all dimensions."""
        layouts = [self.outcome, *(layer.layout for layer in self.layers.values())]
        layouts += self.others.values()
        named = {dim for layout in layouts for dim in layout.dims}
        return named | {dim for dims in self.inputs.values() for dim in dims} | {self.layer}


def read_schema(
    look: Look,
    inputs: Sequence[Tensor],
    y: Tensor | None,
    *,
    site: str,
    dim_names: Mapping[str, str] | None,
) -> Schema:
    """Name the dimensions of a model's sites and inputs.

    Args:
        look: What one run of the model showed.
        inputs: Inputs, each `(rows, ...)`.
        y: Targets, or None.
        site: Name of the outcome's site.
        dim_names: Names in the place of those in `NAMES`.

    Raises:
        InputError: For a name of no dimension, or a site that is not in the model.
    """
    if site not in look.sites:
        raise InputError(
            "site", expected=f"one of {list(look.sites)}", got=repr(site), hint="site='y'"
        )
    outcome = look.sites[site]
    no_output = outputs_are_rows(outcome, inputs, y)
    names = _checked_names(dim_names, "token" if no_output else "time")
    steps = _steps(look, inputs)
    reader = _Reader(look, names, steps)
    schema = Schema(reader.outcome(outcome, no_output), names, steps)
    neurons = {name: node for name, node in look.sites.items() if is_neuron(node)}
    paths = list(dict.fromkeys(layer_of(name) for name in neurons))
    for path in paths:
        prefix = f"{path}." if path and len(paths) > 1 else ""
        of_layer = {name: node for name, node in neurons.items() if layer_of(name) == path}
        schema.layers[path] = reader.layer(path, of_layer, prefix)
    for name, node in look.sites.items():
        if name not in neurons and name != site and not node["is_observed"]:
            schema.others[name] = reader.other(name, node, schema.layers)
    several = len(inputs) > 1
    for place, value in enumerate(inputs):
        name = f"x_{place}" if several else "x"
        schema.inputs[name] = reader.of_input(name, value, f"{name}." if several else "")
    return schema


def outputs_are_rows(outcome: Message, inputs: Sequence[Tensor], y: Tensor | None) -> bool:
    """Say whether targets lack the dimension of outputs, as the tokens of a sequence do.

    Args:
        outcome: The outcome's site.
        inputs: Inputs, each `(rows, ...)`.
        y: Targets; without them, classes that follow sequences of integers are such.
    """
    batch = outcome["fn"].batch_shape
    if outcome["fn"].event_dim or batch[-1] != 1 or len(batch) < 3:
        return False
    if y is not None:
        return y.dim() == len(batch) - 1
    tokens = not inputs[0].is_floating_point() and inputs[0].dim() == len(batch) - 1
    return tokens and isinstance(outcome["fn"], dist.Categorical)


def _checked_names(dim_names: Mapping[str, str] | None, time: str) -> dict[str, str]:
    names = {**{name: name for name in NAMES}, "time": time}
    for name in dim_names or {}:
        if name not in names:
            raise InputError(
                "dim_names",
                expected=f"other names for some of {NAMES}",
                got=repr(name),
                hint='dim_names={"output": "horizon"}',
            )
    names.update(dim_names or {})
    if len(set(names.values())) < len(names):
        raise InputError(
            "dim_names",
            expected="a different name for each dimension",
            got=repr(dict(dim_names or {})),
            hint=f"no name twice, and none of {NAMES} for another dimension",
        )
    return names


def _steps(look: Look, inputs: Sequence[Tensor]) -> int | None:
    """Return the number of steps of sequences, or None where rows are none."""
    if look.dim > -4:
        return None
    return inputs[0].shape[1] if inputs[0].dim() > 1 else None


class _Reader:
    """Names the dimensions of one site after the other."""

    def __init__(self, look: Look, names: Mapping[str, str], steps: int | None) -> None:
        self.rows = look.dim + 1
        self.names = names
        self.steps = steps

    def outcome(self, node: Message, no_output: bool) -> Layout:
        scored = f"scored_{self.names['time']}"
        found = self._batch(node, {-1: self.names["output"]}, other_time=scored)
        fn = node["fn"]
        if fn.event_dim or no_output:
            found.pop(-1)
        events = [self.names["output"]] if fn.event_dim == 1 else None
        return self._layout(node, found, events)

    def layer(self, path: str, nodes: Mapping[str, Message], prefix: str) -> Layer:
        first = next(iter(nodes.values()))
        unit = f"{prefix}{self.names['unit']}"
        time = f"{prefix or f'{path}.'}{self.names['time']}"
        steps = len(nodes) if step_of(next(iter(nodes))) is not None else None
        found = self._batch(first, {-1: unit}, other_time=time, steps=steps)
        events = [f"{prefix}{self.names['latent']}"] if first["fn"].event_dim == 1 else None
        layout = self._layout(first, found, events)
        return Layer(tuple(nodes), layout, unit, first["fn"].batch_shape[-1])

    def other(self, name: str, node: Message, layers: Mapping[str, Layer]) -> Layout:
        own = {}
        owner = next((path for path in layers if name.startswith(f"{path}.")), None)
        sizes = {frame.dim: frame for frame in node["cond_indep_stack"] if frame.vectorized}
        units = sizes.get(-1)
        if owner is not None and units is not None and units.size == layers[owner].num_units:
            own = {-1: layers[owner].unit}
        events = ["lag"] if own and node["fn"].event_dim == 1 else None
        found = self._batch(node, own, other_time=f"{name}.{self.names['time']}")
        return self._layout(node, found, events)

    def of_input(self, name: str, value: Tensor, prefix: str) -> tuple[str, ...]:
        dims = [self.names["row"]]
        rest = list(value.shape[1:])
        if self.steps is not None and rest and rest[0] == self.steps:
            dims.append(self.names["time"])
            rest = rest[1:]
        if len(rest) == 1:
            return (*dims, f"{prefix}{self.names['feature']}")
        return (*dims, *(f"{name}_dim_{place}" for place in range(len(rest))))

    def _batch(
        self,
        node: Message,
        own: Mapping[int, str],
        *,
        other_time: str,
        steps: int | None = None,
    ) -> dict[int, tuple[str, int]]:
        """Return names and sizes of the batch dimensions that a site has, by place."""
        shape = node["fn"].batch_shape
        frames = {frame.dim: frame for frame in node["cond_indep_stack"] if frame.vectorized}
        found: dict[int, tuple[str, int]] = {}
        for place in range(-len(shape), 0):
            size = shape[place]
            if place in own:
                found[place] = own[place], size
            elif place == self.rows and place in frames:
                found[place] = self.names["row"], size
            elif place == -2 and self.rows < -2 and (place in frames or size > 1):
                size = steps or size
                found[place] = (self.names["time"] if size == self.steps else other_time), size
            elif place in frames:
                found[place] = frames[place].name, size
            elif size > 1:
                found[place] = f"{node['name']}_dim_{place + len(shape)}", size
        return found

    def _layout(
        self, node: Message, found: Mapping[int, tuple[str, int]], events: list[str] | None
    ) -> Layout:
        shape = node["fn"].event_shape
        names = events or [f"{node['name']}_event_{place}" for place in range(len(shape))]
        dims = [name for name, _ in found.values()] + names
        places = [place - len(shape) for place in found] + list(range(-len(shape), 0))
        return Layout(tuple(dims), tuple(places), (*(size for _, size in found.values()), *shape))


def layer_variable(path: str, name: str) -> str:
    """Return the name of a variable of the layer at `path`."""
    return f"{path}.{name}" if path else name
