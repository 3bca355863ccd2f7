"""Benchmark: distributional units in a small GPT, beside what else one network can be made into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from pyro_vdn.bench.language_methods import MEMBERS, SETTINGS, TWIN, LanguageMethod
from pyro_vdn.bench.language_reading import Draw, Reading, drawing, ensemble, read, scores
from pyro_vdn.bench.language_signal import signal
from pyro_vdn.bench.language_training import Trained, trained
from pyro_vdn.bench.results import environment
from pyro_vdn.datasets import TextSplits, TokenBlocks, load_text, text_splits
from pyro_vdn.decision import Readout, ReadoutScores, SelectionScore
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.nn.shapes import check_choice
from pyro_vdn.poutine import clamp
from pyro_vdn.train.evaluate_tokens import evaluate_tokens

NUM_SAMPLES = 16
EQUAL_COST = len(MEMBERS)
"""Draws that cost as many passes as the ensemble has members."""
ABLATED = 0
"""Seed of the ablations."""
ABLATION_SAMPLES = 8
_USAGE_BLOCKS = 100


def bench_language(
    models: Path,
    *,
    settings: Sequence[str] = tuple(SETTINGS),
    seeds: Sequence[int] = (0, 1, 2),
    on_run: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train and read all methods on Tiny Shakespeare; choose on one half, report on the other.

    The two halves are those of the customary validation part, the last 10 % of the text: the first
    fits temperatures and combinations of scores, the second is reported on.

    Args:
        models: Folder of trained weights; what is there is not trained again.
        settings: Names of `SETTINGS`.
        seeds: Seeds of weights, batches and noise.
        on_run: Called with the results so far after every seed.

    Returns:
        The results, ready for JSON.
    """
    results: dict[str, Any] = {
        "benchmark": "language",
        "environment": environment(),
        "draws": NUM_SAMPLES,
        "runs": [],
        "ablations": [],
        "readouts": [],
        "signals": [],
    }
    for name in settings:
        check_choice("settings", name, tuple(SETTINGS))
        for seed in seeds:
            study = _Study(name, models, seed)
            place = {"setting": name, "seed": seed}
            for method, metrics in study.runs():
                results["runs"].append(place | {"method": method, "metrics": metrics})
            for row in study.readouts():
                results["readouts"].append(place | row)
            results["signals"].append(place | study.signal())
            on_run(results)
            if seed == ABLATED:
                for method, metrics in study.ablations():
                    results["ablations"].append(place | {"method": method, "metrics": metrics})
                on_run(results)
    return results


class _Study:
    """All methods of a setting for one seed."""

    def __init__(self, setting: str, models: Path, seed: int) -> None:
        self.name, self.setting = setting, SETTINGS[setting]
        self.models, self.seed = models, seed
        text = load_text("tinyshakespeare")
        self.parts: TextSplits = text_splits(text, train_share=self.setting.train_share)
        self.draws: dict[str, Draw] = {}
        self.readings: dict[str, tuple[Reading, Reading]] = {}
        self.readout_scores = ReadoutScores(), ReadoutScores()

    def runs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Train, read and score every method; then what needs several of them."""
        for name, method in self.setting.methods.items():
            result, metrics = self._run(name, method, 1 if method is TWIN else NUM_SAMPLES)
            yield name, metrics
            if name == "neurons":
                few = drawing(method, result.model, EQUAL_COST)
                yield f"neurons, {EQUAL_COST} draws", self._scored(None, few)
                yield "neurons, mean only", self._scored(None, drawing(TWIN, result.model, 1))
        members = [self._trained("twin", TWIN, seed) for seed in MEMBERS]
        together = ensemble([drawing(TWIN, member.model, 1) for member in members])
        facts = {
            "parameters": sum(member.parameters for member in members),
            "train_seconds": sum(member.seconds for member in members),
        }
        yield "ensemble", self._scored("ensemble", together) | facts

    def signal(self) -> dict[str, Any]:
        """Study what the scores of neurons are worth, beside those of dropout and ensemble."""
        names = ("neurons", "dropout", "ensemble")
        halves = [{name: self.readings[name][half] for name in names} for half in (0, 1)]
        draws = {name: self.draws[name] for name in names}
        return signal(draws, self.parts, *halves)

    def _trained(self, name: str, method: LanguageMethod, seed: int) -> Trained:
        vocabulary = self.parts.tokenizer.vocab_size
        label = f"{self.name}-{name}".replace(" ", "-").replace(",", "")
        return trained(method, label, self.parts.train, vocabulary, seed, self.models)

    def ablations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Train, read and score what is varied about the neurons, with fewer draws.

        Useful depth is read off the same network: noise in one block, the others at their means.
        """
        neurons = self.setting.methods["neurons"]
        for name, method in {"neurons": neurons, **self.setting.ablations}.items():
            draws = 1 if method.units == "points" else ABLATION_SAMPLES
            yield name, self._run(name, method, draws, keep=False)[1]
        model = self._trained("neurons", neurons, self.seed).model
        layers = [f"blocks.{layer}.neurons" for layer in model.neuron_layers]
        draw = drawing(neurons, model, ABLATION_SAMPLES)
        for noisy in layers:
            with clamp(units={layer: "mean" for layer in layers if layer != noisy}):
                metrics = self._scored(None, draw)
            yield f"neurons, noise of {noisy} alone", metrics  # with no effect left in force

    def _run(
        self, name: str, method: LanguageMethod, draws: int, *, keep: bool = True
    ) -> tuple[Trained, dict[str, Any]]:
        result = self._trained(name, method, self.seed)
        scored = self._scored(name if keep else None, drawing(method, result.model, draws))
        facts = {"parameters": result.parameters, "train_seconds": result.seconds}
        return result, {**scored, **facts, **self._usage(method, result)}

    def readouts(self) -> Iterator[dict[str, Any]]:
        """Choose a readout of the neurons' draws by each published score on one half."""
        chosen_on, reported_on = self.readout_scores
        reported = {row.readout: row for row in reported_on.table()}
        for by in get_args(SelectionScore):
            best = chosen_on.choose(by=by).readout
            for readout in (best, Readout()):
                row = reported[readout]
                scores = {"nll": row.nll, "ece": row.ece, "cvar": row.cvar, by: getattr(row, by)}
                yield {"by": by, "chosen": readout == best, "readout": asdict(readout), **scores}

    def _scored(self, name: str | None, draw: Draw) -> dict[str, Any]:
        first, second = self.readout_scores if name == "neurons" else (None, None)
        halves = (
            read(draw, self.parts.validation, readouts=first),
            read(draw, self.parts.test, readouts=second),
        )
        if name in ("neurons", "dropout", "ensemble"):
            self.draws[name], self.readings[name] = draw, halves
        return scores(*halves)

    def _usage(self, method: LanguageMethod, result: Trained) -> dict[str, Any]:
        """Return what the units do on the first blocks of the text that choices are made on."""
        blocks = TokenBlocks(self.parts.validation, result.model.block_size)
        some = tuple(part[:_USAGE_BLOCKS] for part in blocks.tensors())
        with method.at(1.0):
            layers = evaluate_tokens(
                result.model, NeuronGuide(result.model), some, num_samples=1
            ).layers
        return {
            "layers": {
                path: {
                    "kl": float(layer.kl.mean()),
                    "active": float(layer.active.mean()),
                    "scale": float(layer.scale.mean()),
                    "mu2": float(layer.mu2.mean()),
                    "contraction": float(layer.contraction.mean()),
                    "information": float(layer.information.mean()),
                }
                for path, layer in layers.items()
            }
        }
