"""Is what neurons say of themselves worth anything to a decision, on clean and on shifted text?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_vdn.bench.language_reading import Draw, Reading, read, scaled_nll
from pyro_vdn.datasets import TextSplits, corrupt_tokens
from pyro_vdn.decision import Combination, Estimate, added_value, compare_aurc
from pyro_vdn.diagnostics import (
    by_group,
    dose_response,
    fit_temperature,
    label_frequency,
    label_ranges,
    summarise_tokens,
)

CORRUPTIONS = (0.0, 0.05, 0.15, 0.30)
RECALIBRATED_AT = 0.15
RISKS = ("nll", "wrong")
BASE = ("entropy", "1 - maximum probability")
DROPOUT = "dropout disagreement"
READ = "mean risk after the character read"
INTERNAL = ("KL", "mutual information", "flip rate", "scale")
_RESAMPLES = 200

Readings = dict[str, Reading]
Tables = dict[float, dict[str, Tensor]]


def corrupted(parts: TextSplits, tokens: Tensor, share: float) -> Tensor | None:
    """Return a text with a share of its tokens replaced by others; None for none."""
    if share == 0:
        return None
    return corrupt_tokens(tokens, share, parts.tokenizer.vocab_size, seed=0)


def signal(
    draws: Mapping[str, Draw],
    parts: TextSplits,
    chosen_on: Readings,
    reported_on: Readings,
) -> dict[str, Any]:
    """Study the scores of neurons, on clean text and under corruption of the context.

    Args:
        draws: What draws from ``"neurons"``, ``"dropout"`` and ``"ensemble"``.
        parts: The text.
        chosen_on: Their readings of the clean half that choices are made on.
        reported_on: Their readings of the clean half that is reported on.

    Returns:
        Areas under risk-coverage curves by corruption, risk and score; what internal scores add to
        the others; risk and KL by dose; metrics of groups; recalibration. Ready for JSON.
    """
    fits = {risk: _Fits(chosen_on, risk, parts.tokenizer.vocab_size) for risk in RISKS}
    areas, added, shift, tables = [], [], [], {}
    shifted = reported_on["neurons"]
    for share in CORRUPTIONS:
        inputs = corrupted(parts, parts.test, share)
        readings = (
            reported_on
            if inputs is None
            else {name: read(draws[name], parts.test, inputs=inputs) for name in draws}
        )
        table = tables[share] = readings["neurons"].table
        if share == RECALIBRATED_AT:
            shifted = readings["neurons"]
        features = _features(readings)
        for risk in RISKS:
            losses, blocks = _risk(table, risk), table["sequence"]
            found = compare_aurc(
                features, losses, reference=BASE[0], blocks=blocks, resamples=_RESAMPLES
            )
            for name, area in found.scores.items():
                row = {"corruption": share, "risk": risk, "score": name}
                areas.append(row | {"aurc": list(area.aurc), "difference": list(area.difference)})
            for name, estimate in fits[risk].saved(features, table).items():
                added.append(
                    {"corruption": share, "risk": risk, "to": name, "saved": list(estimate)}
                )
        for name, reading in readings.items():
            metrics = summarise_tokens(reading.table).to_dict()
            shift.append({"corruption": share, "method": name, **metrics})
    return {
        "aurc": areas,
        "added": added,
        "shift": shift,
        "dose": _dose(tables),
        "groups": _groups(parts, tables[0.0]),
        "recalibration": _recalibration(draws["neurons"], parts, chosen_on["neurons"], shifted),
    }


def _risk(table: Mapping[str, Tensor], risk: str) -> Tensor:
    return table["nll"] if risk == "nll" else (~table["correct"].bool()).float()


def _features(readings: Readings) -> dict[str, Tensor]:
    """Return uncertainty scores of each token by name, larger where less is known."""
    own = readings["neurons"].table
    layers = {
        f"KL of layer {number}": own[name]
        for number, name in enumerate(sorted(name for name in own if name.startswith("kl.")))
    }
    return {
        BASE[0]: own["entropy"],
        BASE[1]: 1 - own["max_probability"],
        "KL": own["kl"],
        "mutual information": own["mutual_information"],
        "flip rate": own["flip_rate"],
        "conditional variance": own["conditional_variance"],
        "scale": own["scale"],
        DROPOUT: readings["dropout"].table["mutual_information"],
        "ensemble disagreement": readings["ensemble"].table["mutual_information"],
        **layers,
    }


def _risk_by_token(table: Mapping[str, Tensor], risk: str, vocab_size: int) -> Tensor:
    """Return the mean risk after each character, `(vocabulary,)`: the overall mean where none was.

    Scores that do no more than recognise a kind of text, such as names in capitals, do no better.
    """
    losses, tokens = _risk(table, risk), table["token"]
    count = torch.bincount(tokens, minlength=vocab_size)
    total = torch.bincount(tokens, losses, minlength=vocab_size)
    return torch.where(count > 0, total / count.clamp(min=1), losses.mean()).float()


class _Fits:
    """Combinations with and without internal scores, fitted on one half to be seen on others."""

    def __init__(self, chosen_on: Readings, risk: str, vocab_size: int) -> None:
        table = chosen_on["neurons"].table
        self.risk, self.after = risk, _risk_by_token(table, risk, vocab_size)
        features = self._with_known(_features(chosen_on), table)
        losses = _risk(table, risk)
        internal = (*INTERNAL, *(name for name in features if name.startswith("KL of layer")))
        self.pairs = {
            " + ".join(base): tuple(
                Combination.fit(features, losses, names=names) for names in (base, base + internal)
            )
            for base in (BASE, (*BASE, DROPOUT), (*BASE, DROPOUT, READ))
        }

    def saved(
        self, features: dict[str, Tensor], table: Mapping[str, Tensor]
    ) -> dict[str, Estimate]:
        """Return what the internal scores save beyond others, by name of the others."""
        known, losses = self._with_known(features, table), _risk(table, self.risk)
        return {
            name: added_value(
                few, many, known, losses, blocks=table["sequence"], resamples=_RESAMPLES
            )
            for name, (few, many) in self.pairs.items()
        }

    def _with_known(
        self, features: dict[str, Tensor], table: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        return features | {READ: self.after[table["token"]]}


def _dose(tables: Tables) -> dict[str, Any]:
    """Return how risk answers to KL on clean text, and how KL answers to corruption."""
    clean = tables[0.0]
    by_kl = {
        risk: _plain(dose_response(clean["kl"], _risk(clean, risk), blocks=clean["sequence"]))
        for risk in RISKS
    }
    dose = torch.cat([torch.full_like(t["nll"], share) for share, t in tables.items()])
    blocks = torch.cat([t["sequence"] for t in tables.values()])
    by_corruption = {
        name: _plain(
            dose_response(
                dose, torch.cat([t[name] for t in tables.values()]), bins=None, blocks=blocks
            )
        )
        for name in ("nll", "kl", "mutual_information", "entropy")
    }
    return {"by_kl": by_kl, "by_corruption": by_corruption}


def _plain(response: Any) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, (np.ndarray, Tensor)) else value
        for name, value in vars(response).items()
    }


def _groups(parts: TextSplits, table: dict[str, Tensor]) -> dict[str, Any]:
    """Return metrics of rare and common targets, short and long contexts, and stretches of text."""
    counts = torch.bincount(parts.train, minlength=parts.tokenizer.vocab_size)
    stretch = torch.arange(len(table["nll"])) * 5 // len(table["nll"])
    labels: dict[str, Any] = {
        "target": label_frequency(table["target"], counts),
        "context": label_ranges(table["position"], (4, 16, 32)),
        "stretch": stretch,
    }
    return {
        name: {str(key): metrics.to_dict() for key, metrics in by_group(table, label).items()}
        for name, label in labels.items()
    }


def _recalibration(
    draw: Draw, parts: TextSplits, chosen_on: Reading, shifted: Reading
) -> dict[str, float]:
    """Return the NLL under corruption: as it is, and at temperatures of clean and shifted text."""
    inputs = corrupted(parts, parts.validation, RECALIBRATED_AT)
    fitted_on = read(draw, parts.validation, inputs=inputs)
    clean = fit_temperature(chosen_on.log_probs, chosen_on.targets)
    after = fit_temperature(fitted_on.log_probs, fitted_on.targets)
    return {
        "corruption": RECALIBRATED_AT,
        "clean_temperature": clean,
        "shifted_temperature": after,
        "nll": scaled_nll(shifted, 1.0),
        "nll_at_clean_temperature": scaled_nll(shifted, clean),
        "nll_at_shifted_temperature": scaled_nll(shifted, after),
    }
