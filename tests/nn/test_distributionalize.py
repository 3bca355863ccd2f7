"""Existing networks turned distributional."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import VariationalNeurons, distributionalize
from pyro_vdn.poutine import PosteriorMessenger, deterministic


def make_mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 1))


def make_transformer() -> nn.Module:
    # Without a feed-forward fast path: eval() would skip linear1's hooks.
    return nn.TransformerEncoderLayer(3, 1, 6, dropout=0.0, batch_first=True)


NETS: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...], list[str]]] = {
    "linear": (make_mlp, "0", (4, 3), ["0"]),
    "activations": (make_mlp, "[13]", (4, 3), ["1", "3"]),
    "transformer": (make_transformer, "linear1", (2, 4, 3), ["linear1"]),
}


class Wrapped(PyroModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        with contextlib.ExitStack() as plates:  # one for every leading dimension: rows, tokens
            for dim in range(-x.dim(), -1):
                plates.enter_context(pyro.plate(f"rows{dim}", x.shape[dim], dim=dim))
            out = self.net(x)
            return pyro.sample("y", dist.Normal(out, 0.5), obs=y)


def make_case(name: str) -> tuple[nn.Module, nn.Module, Tensor, list[str]]:
    make, where, shape, names = NETS[name]
    x, original = torch.randn(*shape), make()
    net = distributionalize(copy.deepcopy(original), where, example_inputs=[x])
    return original, net, x, names


@pytest.mark.parametrize("name", NETS)
def test_starts_as_itself(name: str) -> None:
    original, net, x, _ = make_case(name)
    torch.testing.assert_close(deterministic(net)(x), original(x))
    pyro.set_rng_seed(0)
    with PosteriorMessenger():
        noisy = net(x)
    assert not torch.equal(noisy, original(x))
    torch.testing.assert_close(noisy, original(x), rtol=0, atol=0.3)


@pytest.mark.parametrize("name", NETS)
def test_sites_and_state_dict_keep_their_names(name: str) -> None:
    original, net, x, names = make_case(name)
    trace = pyro.poutine.trace(net).get_trace(x)
    assert {site for site in trace.nodes if site.endswith(".z")} == {
        f"{path}.neurons.z" for path in names
    }
    state = net.state_dict()
    for key, value in original.state_dict().items():
        torch.testing.assert_close(state[key], value)
    new = set(state) - set(original.state_dict())
    assert {key.split(".neurons.")[0] for key in new} == set(names)
    missing, unexpected = net.load_state_dict(original.state_dict(), strict=False)
    assert set(missing) == new
    assert unexpected == []


@pytest.mark.parametrize("name", NETS)
def test_round_trips(name: str) -> None:
    _, net, x, _ = make_case(name)
    clone = copy.deepcopy(net)
    other = make_case(name)[1]
    other.load_state_dict(net.state_dict())
    with torch.no_grad():  # the copies are their own
        next(net.parameters()).add_(10.0)
    for one in (clone, other):
        pyro.set_rng_seed(0)
        values = PosteriorMessenger()(one)(x)
        pyro.set_rng_seed(0)
        torch.testing.assert_close(values, PosteriorMessenger()(clone)(x))
        assert not torch.allclose(deterministic(one)(x), deterministic(net)(x))


@pytest.mark.parametrize("loss", [LocalELBO, Trace_ELBO])
def test_trains(loss: Any) -> None:
    x = torch.randn(60, 3)
    y = x.sum(-1, keepdim=True).sin()
    model = Wrapped(distributionalize(make_mlp(), ["0", "2"]))
    guide, elbo = NeuronGuide(model), loss()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(200):
        optimiser.zero_grad()
        losses.append(elbo.loss_and_grads(model, guide, x, y))
        optimiser.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert "net.0.neurons.z" in pyro.poutine.trace(model).get_trace(x, y).nodes


def test_transformer_trains() -> None:
    model = Wrapped(make_case("transformer")[1])
    x = torch.randn(2, 4, 3)
    loss = LocalELBO().loss_and_grads(model, NeuronGuide(model), x, torch.randn(2, 4, 3))
    assert loss == pytest.approx(loss)
    assert all(p.grad is not None for p in model.net.linear1.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_transformer_keeps_its_neurons_in_both_modes(training: bool) -> None:
    _, net, x, _ = make_case("transformer")
    net.train(training)
    with torch.no_grad():
        trace = pyro.poutine.trace(net).get_trace(x)
    assert "linear1.neurons.z" in trace.nodes


@pytest.mark.parametrize("scale", [1e-2, 0.5])
def test_initial_scale(scale: float) -> None:
    net = distributionalize(make_mlp(), "0", initial_scale=scale)
    stddev = net[0].neurons.posterior(torch.zeros(2, 8)).stddev
    torch.testing.assert_close(stddev, torch.full_like(stddev, scale))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_is_that_of_the_network(dtype: torch.dtype) -> None:
    net = distributionalize(make_mlp().to(dtype), "0")
    assert net(torch.zeros(2, 3, dtype=dtype)).dtype == dtype


def test_where_takes_several_patterns() -> None:
    net = distributionalize(make_mlp(), ["0", "[24]"])
    layers = [name for name, sub in net.named_modules() if isinstance(sub, VariationalNeurons)]
    assert layers == ["0.neurons", "2.neurons", "4.neurons"]


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("net", "where", "inputs", "text"),
    [
        (make_mlp(), "encoder.*", None, r"where: expected a pattern that matches one of \['0'"),
        (make_mlp(), ["0", "9"], None, "got '9'"),
        (
            make_mlp(),
            "1",
            None,
            r"inputs to learn the width of '1' \(ReLU\) from",
        ),
        (nn.Sequential(Pair()), "0", [torch.zeros(2, 3)], "submodules that return one tensor"),
    ],
)
def test_refusals(net: nn.Module, where: Any, inputs: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        distributionalize(net, where, example_inputs=inputs)


def test_refuses_to_do_it_twice() -> None:
    net = distributionalize(make_mlp(), "0")
    with pytest.raises(InputError, match="without a child called 'neurons', got '0'"):
        distributionalize(net, "0")


def test_refused_patterns_leave_the_network_alone() -> None:
    net = make_mlp()
    with pytest.raises(InputError):
        distributionalize(net, ["0", "nothing"])
    assert not any(isinstance(sub, VariationalNeurons) for sub in net.modules())


def test_a_sequential_gets_its_neurons_behind_its_last_child() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4)), nn.Linear(4, 1))
    net = distributionalize(net, ["0", "0.1"])
    trace = pyro.poutine.trace(net).get_trace(torch.randn(2, 3))
    assert [name for name in trace.stochastic_nodes if name.endswith(".z")] == ["0.1.neurons.z"]


def test_convolutions_are_refused() -> None:
    with pytest.raises(InputError, match="'0', a convolution, whose channels are not last"):
        distributionalize(nn.Sequential(nn.Conv1d(3, 4, 1)), "0")
