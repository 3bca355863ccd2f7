"""Priors matched before every evaluation of `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import VariationalGPT
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.poutine import kl_weight, record
from pyro_vdn.train import FitOptions, fit, load_checkpoint
from pyro_vdn.train.prior_matching import MatchPriors

OPTIONS = FitOptions(max_steps=4, batch_size=4, evaluate_every=2, warmup_steps=0, accelerator="cpu")
TEXT = torch.arange(60) % 5
ROWS = TEXT[:-1].unfold(0, 4, 1), TEXT[1:].unfold(0, 4, 1)


def trained(folder: Path | None = None, *, matched: bool = True, **options: Any) -> Any:
    pyro.set_rng_seed(2)
    model = VariationalGPT(5, block_size=4, num_layers=1, num_heads=1, width=4, initial_scale=0.2)
    callbacks = [MatchPriors(ROWS[0], batches=8, batch_size=10)] if matched else []
    settings = {"options": OPTIONS, "loss": LocalELBO(), "progress": False, "folder": folder}
    fit(kl_weight(model, 0.0), ROWS, ROWS, callbacks=callbacks, **{**settings, **options})
    return model


def prior_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if ".prior." in name}


def kl_of(model: VariationalGPT) -> float:
    with record() as seen, torch.no_grad():
        NeuronGuide(model)(ROWS[0])
    return float(seen["blocks.0.neurons"].kl.mean.mean())


def test_priors_are_matched_and_nothing_else_is_changed() -> None:
    model, other = trained(matched=True), trained(matched=False)
    matched, untouched = model.state_dict(), other.state_dict()
    own = prior_of(matched)
    assert len(own) == 2
    for name, value in untouched.items():
        assert torch.equal(value, matched[name]) == (name not in own), name
    assert kl_of(model) < 0.5 * kl_of(other)


def test_checkpoints_hold_the_priors_of_their_weights(tmp_path: Path) -> None:
    model = trained(tmp_path / "run", matched=True)
    state = load_checkpoint(tmp_path / "run" / "last.safetensors")["state_dict"]
    last = {name.removeprefix("model."): value for name, value in state.items()}
    assert all(torch.equal(last[name], value) for name, value in model.state_dict().items())
    short = FitOptions(**{**vars(OPTIONS), "max_steps": 2})
    trained(tmp_path / "again", matched=True, options=short)
    state = load_checkpoint(tmp_path / "again" / "last.safetensors")["state_dict"]
    first = {name.removeprefix("model."): value for name, value in state.items()}
    assert not any(torch.equal(first[name], value) for name, value in prior_of(last).items())


@pytest.mark.parametrize("numbers", [{"batches": 0}, {"batch_size": 0}])
def test_numbers_are_positive(numbers: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected a positive integer, got 0"):
        MatchPriors(ROWS[0], **numbers)
