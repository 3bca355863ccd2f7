"""What units did over training: per-unit quantities and loss terms by step, and their drift."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_layers
from pyro_vdn.errors import InputError
from pyro_vdn.infer import Terms
from pyro_vdn.nn.shapes import check_choice
from pyro_vdn.poutine import LayerRecord

Array = NDArray[np.float64]
Quantity = Literal["kl", "mu2", "scale"]

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
"""What is kept of every unit."""

TERMS = ("log_likelihood", "kl", "penalty", "local", "others", "elbo")
"""The loss terms that are kept, each summed over sites, units and rows."""

_FLOOR = 1e-8


class Drift(NamedTuple):
    """How fast a quantity moves, per unit.

    Args:
        slope: Change of its logarithm per 1,000 steps, `(units,)`.
        standard_error: Its standard error, `(units,)`, with residuals taken to be independent.

    Example:
        >>> Drift(np.array([0.7]), np.array([0.1])).slope
        array([0.7])
    """

    slope: Array
    standard_error: Array


class TrainingHistory:
    """Per-unit KL, energy and scale, and loss terms, noted now and then during training.

    Nothing of it touches training. One note copies `(units,)` numbers three times per layer to the
    CPU; every 10 to 50 steps is plenty.

    Example:
        >>> import pyro
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.infer import SVI, LocalELBO
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.poutine import record
        >>> model, x, y = Regression(3, num_units=4), torch.randn(50, 3), torch.randn(50, 1)
        >>> guide, loss, history = NeuronGuide(model), LocalELBO(), TrainingHistory()
        >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss)
        >>> for step in range(1, 31):
        ...     with record() as seen:
        ...         _ = svi.step(x, y)
        ...     if step % 10 == 0:
        ...         with torch.no_grad():
        ...             history.note(step, seen, loss.terms(model, guide, x, y))
        >>> history.of("neurons", "kl").shape, history.steps("neurons").tolist()
        ((3, 4), [10, 20, 30])
    """

    def __init__(self) -> None:
        self._layers: dict[str, dict[str, list[Any]]] = {}
        self._terms: dict[str, list[Any]] = {}

    def note(self, step: int, seen: Mapping[str, LayerRecord], terms: Terms | None = None) -> None:
        """Take in what layers did since the last note.

        Args:
            step: The training step, larger than that of the note before.
            seen: What :func:`pyro_vdn.poutine.record` saw; a new record for each note, or averages
                reach back to the first step.
            terms: The loss, term by term.

        Raises:
            InputError: If the step does not grow, or a layer has changed its number of units;
                nothing is noted then.
        """
        known = [moments for moments in (*self._layers.values(), self._terms) if moments]
        last = max((moments["step"][-1] for moments in known), default=None)
        if last is not None and step <= last:
            raise InputError(
                "step",
                expected=f"a step after {last}",
                got=str(step),
                hint="note each step once, in order; start another TrainingHistory for a new run",
            )
        # All is checked and computed before anything is kept: half a note would shift the next.
        kept = {path: self._of_layer(path, step, layer) for path, layer in seen.items()}
        if terms is not None:
            totals = {name: _total(getattr(terms, name)) for name in TERMS}
            _append(self._terms, {"step": step, **totals})
        for path, values in kept.items():
            _append(self._layers.setdefault(path, {}), values)

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers that were seen."""
        return tuple(self._layers)

    def steps(self, path: str) -> NDArray[np.int64]:
        """Return the steps at which a layer was noted, `(times,)`."""
        check_layers("path", (path,), self._layers)
        return np.array(self._layers[path]["step"], dtype=np.int64)

    def of(self, path: str, quantity: Quantity = "kl") -> Array:
        """Return a quantity of a layer's units at every noted step, `(times, units)`.

        Args:
            path: Path of the layer.
            quantity: ``"kl"`` in nats, ``"mu2"`` (energy), or ``"scale"`` (root mean posterior
                variance).

        Raises:
            InputError: For a layer that was never seen or an unknown quantity.
        """
        check_layers("path", (path,), self._layers)
        check_choice("quantity", quantity, QUANTITIES)
        return torch.stack(self._layers[path][quantity]).double().numpy()

    def terms(self) -> dict[str, Array]:
        """Return the loss terms by name, each `(times,)`, with their steps under ``"step"``."""
        return {name: np.array(values, dtype=float) for name, values in self._terms.items()}

    def drift(self, path: str, quantity: Quantity = "mu2") -> Drift:
        r"""Return how fast a quantity still moves: the trend over the last half of the steps.

        The least-squares slope :math:`b` of :math:`\log q_t = a + b\, t / 1000`; a quantity under
        1e-8 counts as 1e-8. A drift of 0.7 doubles it every 1,000 steps. Neighbouring notes of a
        slowly moving unit are alike, so the standard error is then too small.

        Args:
            path: Path of the layer.
            quantity: ``"kl"``, ``"mu2"`` or ``"scale"``.

        Returns:
            Slope and standard error per unit.

        Raises:
            InputError: If fewer than three notes fall into the last half.

        Example:
            >>> history = TrainingHistory()
            >>> state = {"step": list(range(0, 900, 100)), "kl": [torch.ones(2)] * 9}
            >>> state["mu2"] = [torch.exp(torch.tensor([0.002, -0.001]) * s) for s in state["step"]]
            >>> state["scale"] = state["kl"]
            >>> stacked = {k: v if k == "step" else torch.stack(v) for k, v in state.items()}
            >>> history.load_state_dict({"layers": {"a": stacked}, "terms": {}})
            >>> history.drift("a").slope.round(4).tolist()
            [2.0, -1.0]
        """
        steps = self.steps(path).astype(float)
        late = steps >= 0.5 * (steps[0] + steps[-1])
        if late.sum() < 3:
            raise InputError(
                "drift",
                expected="at least three notes in the last half of the steps",
                got=str(int(late.sum())),
                hint="note more often",
            )
        time = steps[late] / 1000.0
        time = time - time.mean()
        values = np.log(np.maximum(self.of(path, quantity)[late], _FLOOR))  # (times, units)
        values = values - values.mean(0)
        slope = time @ values / (time @ time)
        residual = values - time[:, None] * slope
        error = np.sqrt((residual**2).sum(0) / (len(time) - 2) / (time @ time))
        return Drift(slope, error)

    def state_dict(self) -> dict[str, Any]:
        """Return everything as tensors, numbers, strings and lists, fit for a checkpoint."""
        layers = {
            path: {
                name: list(values) if name == "step" else torch.stack(values)
                for name, values in moments.items()
            }
            for path, moments in self._layers.items()
        }
        return {
            "layers": layers,
            "terms": {name: list(values) for name, values in self._terms.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned.

        Raises:
            InputError: For anything else; the history is then left as it was.
        """
        if not _is_history(state_dict):
            raise InputError(
                "state_dict",
                expected="what TrainingHistory.state_dict() returned",
                got=_describe(state_dict),
                hint="pass the part of the checkpoint under the name the history was saved by",
            )
        self._layers = {
            path: {name: list(values) for name, values in moments.items()}
            for path, moments in state_dict["layers"].items()
        }
        self._terms = {name: list(values) for name, values in state_dict["terms"].items()}

    def _of_layer(self, path: str, step: int, layer: LayerRecord) -> dict[str, Any]:
        """Return a note of a layer: the step and every quantity."""
        before = self._layers.get(path, {}).get("kl", [])
        units = len(layer.kl.mean)
        if before and len(before[-1]) != units:
            raise InputError(
                f"layer '{path}'",
                expected=f"{len(before[-1])} units, as before",
                got=str(units),
                hint="start another TrainingHistory for another model",
            )
        values = {
            "kl": layer.kl.mean,
            "mu2": layer.energy.mean,
            "scale": layer.variance.mean.sqrt(),
        }
        return {
            "step": step,
            **{name: value.detach().cpu().double() for name, value in values.items()},
        }


def _append(kept: dict[str, list[Any]], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        kept.setdefault(name, []).append(value)


def _is_history(state: object) -> bool:
    """Say whether this is the state of a history: layers and terms, each as long as its steps."""
    if not (isinstance(state, Mapping) and {"layers", "terms"} <= set(state)):
        return False
    layers, terms = state["layers"], state["terms"]
    if not (isinstance(layers, Mapping) and isinstance(terms, Mapping)):
        return False
    return all(_is_noted(moments, QUANTITIES) for moments in layers.values()) and (
        not terms or _is_noted(terms, ())
    )


def _is_noted(moments: object, names: Collection[str]) -> bool:
    """Say whether there are steps and, as often, everything named."""
    if not (isinstance(moments, Mapping) and {"step", *names} <= set(moments)):
        return False
    if not all(isinstance(values, (list, tuple, Tensor)) for values in moments.values()):
        return False
    return len({len(values) for values in moments.values()}) == 1


def _describe(state: object) -> str:
    if not isinstance(state, Mapping):
        return type(state).__name__
    if {"layers", "terms"} <= set(state):
        return "layers or terms that lack a quantity or a note"
    return f"entries {sorted(map(str, state))[:6]}"


def _total(value: Tensor | Mapping[str, Tensor]) -> float:
    """Sum a term over its sites, units and rows."""
    if isinstance(value, Tensor):
        return float(value.detach())
    return float(sum(float(part.detach().sum()) for part in value.values()))
