"""Changing what other effects hold, and knowing where a posterior is drawn from."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from torch import Tensor

from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.nn.markov import ChainStep, Dependence
from pyro_vdn.poutine import Averaged, DroppedOut, Held, PosteriorMessenger
from pyro_vdn.poutine.leaves import change_leaves, change_posterior, is_plain_normal
from pyro_vdn.poutine.messenger import NeuronMessenger

UNITS = 3
HELD = torch.tensor([True, False, False])


def normal(*event: int) -> dist.Distribution:
    return dist.Normal(torch.zeros(2, UNITS, *event, dtype=torch.float64), 1.0)


@pytest.mark.parametrize(
    ("wrapped", "event_dim", "scale"),
    [
        (normal(), 0, 3.0),
        (normal(2).to_event(1), 1, 3.0),
        (normal(2, 2).to_event(1).to_event(1), 2, 3.0),
        (normal().mask(~HELD), 0, 3.0),
        (normal().mask(True), 0, 3.0),
        (Averaged(normal(2).to_event(1), 9), 1, 1.0),
        (Held(normal(2).to_event(1), HELD, normal(2).to_event(1)), 1, [1.0, 3.0, 3.0]),
        (Held(Averaged(normal(), 9), HELD, normal()), 0, [1.0, 1.0, 1.0]),
    ],
    ids=["plain", "event", "events", "mask", "true mask", "average", "held", "held average"],
)
def test_the_distribution_within_is_changed(wrapped: Any, event_dim: int, scale: Any) -> None:
    seen: list[tuple[str, int]] = []

    def triple(leaf: dist.Distribution, dims: int) -> dist.Distribution:
        seen.append((type(leaf).__name__, dims))
        return dist.Normal(leaf.mean, 3 * leaf.stddev)

    changed = change_leaves(wrapped, triple)
    assert seen == [("Normal", event_dim)]
    assert type(changed) is type(wrapped)
    assert changed.batch_shape == wrapped.batch_shape
    assert changed.event_shape == wrapped.event_shape
    expected = torch.as_tensor(scale).expand(2, UNITS)
    expected = expected.reshape(2, UNITS, *[1] * event_dim).expand(changed.variance.shape)
    torch.testing.assert_close(changed.variance.sqrt(), expected)
    if not isinstance(wrapped, Averaged):
        assert getattr(changed, "_mask", None) is getattr(wrapped, "_mask", None) or torch.equal(
            changed._mask, wrapped._mask
        )


def test_a_point_is_left_alone_and_dropout_is_not() -> None:
    point = dist.Delta(torch.zeros(2, UNITS)).mask(False)
    assert change_leaves(point, lambda leaf, _: normal()) is point
    dropped = DroppedOut(torch.ones(2, UNITS), 0.5)
    seen: list[dist.Distribution] = []
    change_leaves(dropped, lambda leaf, _: (seen.append(leaf), leaf)[1])
    assert seen == [dropped]


def test_a_step_of_a_chain_is_no_plain_normal() -> None:
    one = torch.ones(1, 2)
    step = ChainStep(one, one, Dependence(torch.ones(1, 2, 1), torch.zeros(())))
    assert is_plain_normal(normal())
    assert not is_plain_normal(step)
    assert not is_plain_normal(dist.Laplace(torch.zeros(2), 1.0))


class Shift(NeuronMessenger):
    """Move posteriors, and count."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = 0

    def on_neuron(self, msg: dict[str, Any]) -> None:
        change_posterior(msg, self._moved)

    def _moved(self, posterior: dist.Distribution) -> dist.Distribution:
        self.changed += 1
        return dist.Normal(posterior.mean + 100, posterior.stddev)


@pytest.mark.parametrize("outside", [False, True])
def test_the_posterior_is_changed_whichever_side_it_is_drawn_on(outside: bool) -> None:
    layer, x = VariationalNeurons(4, UNITS), torch.randn(2, 4)
    first, second = (Shift(), PosteriorMessenger()) if outside else (PosteriorMessenger(), Shift())
    with pyro.poutine.trace() as traced, first, second:
        layer(x)
    site = traced.trace.nodes["z"]
    assert (site["value"] > 50).all()
    assert (site["infer"]["vdn_posterior"]().mean > 50).all()
    assert site["infer"]["vdn_prior"].mean.abs().max() == 0


def test_a_prior_is_never_changed() -> None:
    layer, x = VariationalNeurons(4, UNITS), torch.randn(2, 4)
    with Shift():
        assert layer(x).abs().max() < 50

    def model(h: Tensor) -> None:
        with pyro.plate("rows", 2, dim=-2):
            layer(h)

    with Shift() as effect:
        guide = pyro.poutine.trace(NeuronGuide(model)).get_trace(x)
        count = effect.changed
        replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace=guide)).get_trace(x)
    assert effect.changed == count
    assert (guide.nodes["z"]["fn"].mean > 50).all()
    assert replayed.nodes["z"]["fn"].mean.abs().max() == 0
    assert torch.equal(replayed.nodes["z"]["value"], guide.nodes["z"]["value"])
    offered = replayed.nodes["z"]["infer"]["vdn_posterior"]()
    assert (offered.mean < 150).all()  # moved once, by the guide
