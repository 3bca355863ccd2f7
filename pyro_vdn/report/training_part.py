"""How the models of a run were trained: steps, checkpoints, and the loss on the way."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_vdn.diagnostics._figure import ACCENT, INK, MUTED, WARM, legend, new_figure, style
from pyro_vdn.report.blocks import paragraph, picture, table
from pyro_vdn.report.findings import training_check
from pyro_vdn.report.markup import Content, Markup
from pyro_vdn.report.part import Part
from pyro_vdn.report.words import plus_minus
from pyro_vdn.train.members import NEURONS, REFERENCES, method_label
from pyro_vdn.train.run_folder import TRAINING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = dict(zip((NEURONS, *REFERENCES), (ACCENT, WARM, INK, MUTED), strict=True))
_FEW = 30
_PANELS = {"train_loss": "training loss", "validation_nll": "validation NLL"}
Curves = dict[str, dict[str, tuple[list[float], list[float]]]]
"""By score and model, steps and values."""


def training_part(folder: Path, models: Mapping[str, Mapping[str, Any]]) -> Part:
    """Return the section on training.

    Args:
        folder: The run's folder, whose logs are drawn where they are there.
        models: What ``metrics.json`` has of each method.
    """
    trained = {name: _members(name, figures) for name, figures in models.items()}
    each = {label: one for members in trained.values() for label, one in members.items()}
    content = [_table(models, trained)]
    curves = read_logs(folder)
    if any(curves.values()):
        content.append(
            picture(
                _plot(curves),
                alt="Training loss and validation NLL over the steps of training, by model.",
                caption="Losses of different models are not comparable; validation NLL is.",
            )
        )
    else:
        content.append(paragraph("The folder holds no logs of training."))
    steps = {label: (one["steps"], one["best_step"]) for label, one in each.items()}
    return Part("training", "Training", tuple(content), (training_check(steps),))


def read_logs(folder: Path) -> Curves:
    """Read what was logged while the models of a run were trained.

    Args:
        folder: The run's folder.

    Returns:
        Steps and values by score and model; those of a resumed run one after the other.
    """
    curves: Curves = {name: {} for name in _PANELS}
    for path in sorted((folder / TRAINING).glob("*/logs/*/metrics.csv"), key=_began):
        member = path.parts[-4]
        if _method(member) not in _COLOURS:
            continue  # not of this library
        with path.open(newline="", encoding="utf-8") as handle:
            for row in csv.DictReader(handle):
                for name in _PANELS:
                    value = _number(row.get(name))
                    if math.isfinite(value):
                        steps, values = curves[name].setdefault(member, ([], []))
                        steps.append(_number(row.get("step")) + 1)
                        values.append(value)
    return curves


def _began(path: Path) -> tuple[str, int]:
    """Sort by model, then by the step from which a log goes on."""
    digits = "".join(filter(str.isdecimal, path.parts[-2]))
    return path.parts[-4], int(digits or 0)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _members(name: str, figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    label = method_label(name)
    members: Sequence[Mapping[str, Any]] = figures.get("members", [figures])
    if len(members) == 1:
        return {label: members[0]}
    return {f"{label} {at + 1}": one for at, one in enumerate(members)}


def _table(
    models: Mapping[str, Mapping[str, Any]], trained: Mapping[str, Mapping[str, Any]]
) -> Markup:
    lines: list[list[Content]] = []
    for name, members in trained.items():
        whole = models[name]
        for at, (label, one) in enumerate(members.items()):
            nll = one["validation_nll"]
            lines.append(
                [
                    label,
                    f"{one['steps']:,}",
                    "-" if one["best_step"] is None else f"{one['best_step']:,}",
                    "-" if nll is None else plus_minus(nll, math.inf),
                    f"{whole['parameters']:,}" if at == 0 else "",
                    f"{whole['training_seconds']:,.0f}" if at == 0 else "",
                ]
            )
    head = ["", "steps", "kept step", "validation NLL", "parameters", "seconds"]
    caption = (
        "Training of each network. The checkpoint of the kept step has the lowest validation NLL; "
        "parameters are those that take part in predictions, of an ensemble all of them."
    )
    return table(caption, head, lines)


def _plot(curves: Curves) -> Figure:
    figure = new_figure(4.4)
    for axes, (name, label) in zip(figure.subplots(1, 2), _PANELS.items(), strict=True):
        style(axes, title=label, x="step", y="nats" if name == "validation_nll" else "")
        told = set[str]()
        for member, (steps, values) in sorted(curves[name].items(), key=_place):
            method = _method(member)
            axes.plot(
                steps,
                values,
                color=_COLOURS[method],
                lw=1.8 if method == NEURONS else 1.4,
                marker="o" if len(values) < _FEW else "",
                ms=3.5,
                ls=":" if member != method else "-",
                label="" if method in told else method_label(method),
            )
            told.add(method)
        if told:
            legend(axes, loc="upper right")
    return figure


def _method(member: str) -> str:
    """Return the method of a network's folder, of which an ensemble has several."""
    return member.rsplit("-", 1)[0]


def _place(curve: tuple[str, Any]) -> tuple[int, str]:
    """Sort the neurons first, then their references in the order of their training."""
    return list(_COLOURS).index(_method(curve[0])), curve[0]
