"""The share of memory in a loss, by hand and beside the controller that holds it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyro_vdn.guides import NeuronGuide

from pyro_vdn.control import PersistenceShare, watch
from pyro_vdn.diagnostics import memory_share
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.infer.loss import Terms
from pyro_vdn.testing.sequences import TrackingModel, slow_signal


def made(**given: Any) -> Terms:
    terms: dict[str, Any] = {
        "log_likelihood": {"y": torch.tensor([-20.0, -10.0])},
        "kl": {"plain": torch.tensor([50.0]), "a": torch.tensor([2.0, 3.0]), "b": torch.ones(5)},
        "local": {},
        "penalty": {"a": torch.tensor([30.0])},
        "others": torch.tensor(0.0),
        "elbo": torch.tensor(0.0),
    }
    return Terms(**{**terms, **given})


@pytest.mark.parametrize(
    ("layers", "of", "share"),
    [(["a"], "kl", 5 / 35), (["a", "b"], "kl", 0.25), (["a"], "penalty", 0.5)],
)
def test_by_hand(layers: list[str], of: Any, share: float) -> None:
    assert memory_share(made(), layers, of=of) == pytest.approx(share)


def test_a_likelihood_above_one_counts_by_its_size() -> None:
    terms = made(log_likelihood={"y": torch.tensor([10.0]), "v": torch.tensor([-5.0])})
    assert memory_share(terms, ["a"]) == pytest.approx(0.5)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("steps", ["parallel", "markov"])
def test_it_is_what_the_controller_holds(steps: Any) -> None:
    model, data = TrackingModel(torch.tensor([0.9, 0.5]), steps=steps), slow_signal(5, 6)
    with torch.no_grad():
        model.readout.weight.mul_(1e-9)  # so that no draw matters
    share = PersistenceShare(model, every=1)
    controlled = share.wrap(model)
    with watch(share):
        LocalELBO().loss_and_grads(controlled, NeuronGuide(controlled), *data)
    terms = LocalELBO().terms(controlled, NeuronGuide(controlled), *data)
    assert share.weight.item() != 1.0
    assert memory_share(terms, ["neurons"]) == pytest.approx(share.share, rel=1e-6)


@pytest.mark.parametrize(
    ("layers", "of", "text"),
    [
        ([], "kl", "layers: expected at least one path"),
        (["c"], "kl", "layers: expected paths of layers"),
        (["b"], "penalty", "layers: expected paths of layers"),
        (["a"], "local", "of: expected"),
    ],
)
def test_bad_input(layers: list[str], of: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        memory_share(made(), layers, of=of)
