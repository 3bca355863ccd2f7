"""Rescaling: with compensation the computed function stays, draw by draw and in closed form."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import DeepRegression, Forecaster, Regression
from torch import Tensor, nn

from pyro_vdn.control import Rescaling, neuron_layers
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO, PACmELBO, Terms
from pyro_vdn.nn import (
    ConditionalNormal,
    LinearReadout,
    NormalLikelihood,
    NormalPosterior,
    OutputScale,
    VariationalNeurons,
)
from pyro_vdn.poutine import LayerRecord, record
from pyro_vdn.testing import randomise

EXACT = {"rtol": 1e-9, "atol": 1e-9}


class Net(PyroModule):
    """Layers of neurons that read one another through a relu, and a readout of the last."""

    def __init__(
        self,
        *,
        num_layers: int = 1,
        activation: Any = "relu",
        scale: Any = "unit",
        conditional: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__()
        copies = settings.get("latent_dim", 1) if settings.get("pool") == "flatten" else 1
        self.activation = activation
        self.layers = nn.ModuleList(
            VariationalNeurons(
                4 if level == 0 else 5 * copies,
                5,
                posterior=NormalPosterior(scale, rank=2, min_scale=1e-4),
                prior=ConditionalNormal() if conditional and level else None,
                **settings,
            )
            for level in range(num_layers)
        )
        self.readout = LinearReadout(5 * copies, 2, activation=activation)
        self.likelihood = NormalLikelihood(OutputScale(2))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        first, *rest = self.layers
        with pyro.plate("data", len(x), dim=-2):
            z = first(x)
            for layer in rest:
                z = layer(torch.relu(z) if self.activation == "relu" else z)
            offer = self.readout.offer(z, self.likelihood)
            return pyro.sample("y", self.likelihood(self.readout(z)), obs=y, infer=offer)


def moved(model: nn.Module, spread: float = 0.3) -> Any:
    model.to(torch.float64)
    randomise(model, spread=spread)
    return model


def readers_of(model: Any) -> dict[str, Any]:
    """What reads each layer of a model whose layers read one another in order."""
    layers = neuron_layers(model)
    return dict(zip(layers, [*list(layers.values())[1:], model.readout], strict=True))


def terms_of(model: Any, loss: Any, data: tuple[Tensor, Tensor]) -> Terms:
    pyro.set_rng_seed(3)
    with torch.no_grad():
        terms: Terms = loss.terms(model, NeuronGuide(model), *data)
    return terms


def seen_by(model: Any, data: tuple[Tensor, Tensor]) -> dict[str, LayerRecord]:
    with record() as seen:
        terms_of(model, LocalELBO(), data)
    return dict(seen)


def rescaled(model: Any, data: tuple[Tensor, Tensor], *, compensate: bool) -> Any:
    """A copy whose units are all multiplied by gains in [0.3, 3]."""
    twin = copy.deepcopy(model)
    layers, seen = neuron_layers(twin), seen_by(model, data)
    rescaling = Rescaling(layers, readers_of(twin) if compensate else None)
    generator = torch.Generator().manual_seed(2)
    for path, layer in layers.items():
        gain = 0.3 * 10 ** torch.rand(layer.shape.num_units, generator=generator)
        rescaling(path, gain, seen[path].scale.mean)
    return twin


def jump(model: Any, data: tuple[Tensor, Tensor], loss: Any, *, compensate: bool) -> float:
    """Largest change of a row's log-likelihood."""
    before = terms_of(model, loss, data).log_likelihood["y"]
    after = terms_of(rescaled(model, data, compensate=compensate), loss, data).log_likelihood["y"]
    return float((after - before).abs().max())


LOSSES = {
    "each draw": lambda: LocalELBO(),
    "several draws": lambda: LocalELBO(3, max_plate_nesting=2),
    "closed form": lambda: PACmELBO(closed_form=True),
}
MODELS: dict[str, Callable[[], Any]] = {
    "Regression": lambda: Regression(4, 2, num_units=7, hidden=(6,)),
    "DeepRegression": lambda: DeepRegression(4, 2, num_units=(5, 6, 7)),
    "DeepRegression, conditional": lambda: DeepRegression(
        4, 2, num_units=(5, 6), prior="conditional"
    ),
    "linear": lambda: Net(activation="identity"),
    "local": lambda: Net(num_layers=2, local_reconstruction=True),
    "k=3, mean": lambda: Net(num_layers=2, latent_dim=3, pool="mean"),
    "k=3, sum": lambda: Net(num_layers=2, latent_dim=3, pool="sum"),
    "k=3, flatten": lambda: Net(num_layers=2, latent_dim=3, pool="flatten"),
    "k=3, local": lambda: Net(num_layers=2, latent_dim=3, local_reconstruction=True),
}


def make_data() -> tuple[Tensor, Tensor]:
    return torch.randn(9, 4), torch.randn(9, 2)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", MODELS)
def test_compensated_the_likelihood_stays(name: str, loss: str) -> None:
    model, data = moved(MODELS[name]()), make_data()
    assert jump(model, data, LOSSES[loss](), compensate=True) < 1e-9
    assert jump(model, data, LOSSES[loss](), compensate=False) > 0.01


@pytest.mark.parametrize("loss", ["each draw", "closed form"])
@pytest.mark.parametrize(
    ("spread", "bound"),
    [(0.0, 1e-4), (0.1, 0.01), (0.3, 0.05)],  # scales that vary by 0.07 %, 10 %, 46 %
)
def test_a_scale_that_depends_on_the_input_follows_closely(
    spread: float, bound: float, loss: str
) -> None:
    model = moved(Forecaster(24, 6, hidden=8, num_units=10, rank=3, kernel_size=5), spread)
    data = torch.randn(16, 24).cumsum(-1), torch.randn(16, 6)
    stays = jump(model, data, LOSSES[loss](), compensate=True)
    assert stays < bound * jump(model, data, LOSSES[loss](), compensate=False)


@pytest.mark.parametrize("scale", ["input", "low_rank"])
def test_layers_read_by_layers_with_such_scales_too(scale: str) -> None:
    model, data = moved(Net(num_layers=3, scale=scale), 0.1), make_data()
    stays = jump(model, data, LocalELBO(), compensate=True)
    assert stays < 0.02 * jump(model, data, LocalELBO(), compensate=False)


@pytest.mark.parametrize("conditional", [False, True], ids=["standard", "conditional"])
@pytest.mark.parametrize("latent_dim", [1, 3])
def test_the_layer_that_reads_notices_nothing(latent_dim: int, conditional: bool) -> None:
    model = moved(
        Net(num_layers=2, latent_dim=latent_dim, conditional=conditional, local_reconstruction=True)
    )
    data = make_data()
    twin = copy.deepcopy(model)
    readers = {"layers.0": [twin.layers[1]]}
    gain = torch.tensor([0.3, 0.7, 1.0, 1.9, 3.0])
    mean = seen_by(model, data)["layers.0"].scale.mean
    Rescaling({"layers.0": twin.layers[0]}, readers)("layers.0", gain, mean)
    before, after = (terms_of(one, LocalELBO(), data) for one in (model, twin))
    torch.testing.assert_close(after.kl["layers.1"], before.kl["layers.1"], **EXACT)
    torch.testing.assert_close(after.local, before.local, **EXACT)
    kls = after.kl["layers.0"], before.kl["layers.0"]
    assert ((kls[0] - kls[1]).abs() > 1e-3).tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("compensate", [True, False])
def test_locations_and_scales_are_multiplied_exactly(latent_dim: int, compensate: bool) -> None:
    model, data = moved(Net(latent_dim=latent_dim)), make_data()
    twin = copy.deepcopy(model)
    readers = {"layers.0": twin.readout} if compensate else None
    gain = torch.tensor([0.3, 0.7, 1.0, 1.9, 3.0])
    Rescaling({"layers.0": twin.layers[0]}, readers)("layers.0", gain, torch.full((5,), 9.9))
    rows = gain[:, None] if latent_dim > 1 else gain
    before, after = (one.layers[0].posterior(data[0]) for one in (model, twin))
    torch.testing.assert_close(after.mean, rows * before.mean, rtol=1e-10, atol=1e-12)
    scale = before.variance.sqrt() * (rows if compensate else 1.0)
    torch.testing.assert_close(after.variance.sqrt(), scale, rtol=1e-10, atol=0)


def test_several_readers_share_the_compensation() -> None:
    model = moved(Net())
    second = nn.Linear(5, 2).double()
    before = model.readout.linear.weight.clone(), second.weight.clone()
    gain = torch.tensor([0.3, 0.7, 1.0, 1.9, 3.0])
    Rescaling({"layers.0": model.layers[0]}, {"layers.0": (model.readout, second)})(
        "layers.0", gain, gain
    )
    torch.testing.assert_close(model.readout.linear.weight, before[0] / gain)
    torch.testing.assert_close(second.weight, before[1] / gain)


def test_a_layer_left_out_is_not_compensated() -> None:
    model = moved(Net(num_layers=2))
    layers, gain = neuron_layers(model), torch.full((5,), 2.0)
    rescaling = Rescaling(layers, {"layers.1": model.readout})
    assert [rescaling.compensates(path) for path in layers] == [False, True]
    weight, scale = model.layers[1].posterior.loc.weight, model.layers[0].posterior.raw_scale.value
    before = weight.clone(), scale.clone(), model.readout.linear.weight.clone()
    rescaling("layers.0", gain, gain)
    assert weight.equal(before[0])
    assert scale.equal(before[1])
    rescaling("layers.1", gain, gain)
    torch.testing.assert_close(model.readout.linear.weight, before[2] / 2)


@pytest.mark.parametrize("compensate", [None, {}])
def test_without_readers_no_layer_is_compensated(compensate: Any) -> None:
    assert not Rescaling(neuron_layers(Net()), compensate).compensates("layers.0")


# --- no further than the prior ---

ASKED = [4.0, 4.0, 4.0, 0.5, 0.5]
SCALES = [0.5, 1.0, 2.0, 0.5, 2.0]


@pytest.mark.parametrize(
    ("prior", "applied"),
    [
        (None, ASKED),
        (1.0, [2.0, 1.0, 1.0, 0.5, 0.5]),  # one beyond its prior is not pushed back, nor further
        (2.0, [4.0, 2.0, 1.0, 0.5, 0.5]),
        (1e-3, [1.0, 1.0, 1.0, 0.5, 0.5]),
    ],
)
def test_compensated_a_scale_is_lifted_to_its_prior_s_at_most(
    prior: float | None, applied: list[float]
) -> None:
    model = moved(Net())
    posterior, readout = model.layers[0].posterior, model.readout.linear.weight
    scale, loc, weight = posterior.scale_of_units(), posterior.loc.bias.clone(), readout.clone()
    rescaling = Rescaling(neuron_layers(model), {"layers.0": model.readout})
    bound = None if prior is None else torch.full((5,), prior)
    gain = rescaling("layers.0", torch.tensor(ASKED), torch.tensor(SCALES), bound)
    assert gain.tolist() == pytest.approx(applied)
    torch.testing.assert_close(posterior.scale_of_units(), scale * gain, rtol=1e-9, atol=0)
    torch.testing.assert_close(posterior.loc.bias, loc * gain)
    torch.testing.assert_close(readout, weight / gain)


def test_uncompensated_the_prior_s_scale_is_no_bound() -> None:
    model = moved(Net())
    before = model.layers[0].posterior.loc.bias.clone()
    gain = Rescaling(neuron_layers(model), None)(
        "layers.0", torch.full((5,), 4.0), torch.ones(5), torch.ones(5)
    )
    assert gain.tolist() == [4.0] * 5
    torch.testing.assert_close(model.layers[0].posterior.loc.bias, 4.0 * before)


@pytest.mark.parametrize("scale", ["unit", "input", "low_rank"])
def test_compensated_a_unit_that_is_not_known_stays(scale: str) -> None:
    model, x = moved(Net(scale=scale)), torch.randn(1, 4)
    before = model.layers[0].posterior(x)
    gap = torch.tensor([1.0, torch.nan, 1.0, 1.0, 1.0])
    scales = before.variance.sqrt()[0].detach() * gap
    gain = Rescaling(neuron_layers(model), {"layers.0": model.readout})(
        "layers.0", torch.full((5,), 0.5), scales
    )
    assert gain.tolist() == [0.5, 1.0, 0.5, 0.5, 0.5]
    after = model.layers[0].posterior(x)
    torch.testing.assert_close(after.mean, before.mean * gain)
    torch.testing.assert_close(after.variance, before.variance * gain.square())


def test_a_prior_scale_that_is_not_known_is_no_bound() -> None:
    model = moved(Net())
    prior_scale = torch.tensor([1.0, torch.nan, torch.inf, 1.0, 1.0])
    gain = Rescaling(neuron_layers(model), {"layers.0": model.readout})(
        "layers.0", torch.full((5,), 4.0), torch.full((5,), 0.5), prior_scale
    )
    assert gain.tolist() == [2.0, 4.0, 4.0, 2.0, 2.0]


READER = nn.Linear(5, 1)


class Mine(nn.Module):
    def forward(self, h: Tensor) -> dist.Distribution:
        return dist.Normal(h[..., :1], torch.ones(5))


def layer(in_features: int = 4, **parts: Any) -> VariationalNeurons:
    return VariationalNeurons(in_features, 5, **parts)


def identity(scale: Any = "unit") -> VariationalNeurons:
    return layer(5, posterior=NormalPosterior(scale, loc="identity"))


@pytest.mark.parametrize(
    ("neurons", "readers", "text"),
    [
        (
            layer(posterior=Mine()),
            None,
            r"layer 'a': expected a NormalPosterior whose location is linear.*, got Mine. Try",
        ),
        (identity(), None, r"got NormalPosterior\(loc='identity'\). Try: NormalPosterior\(loc="),
        (layer(), {"a": []}, "compensate of layer 'a': expected what reads the layer.*got nothing"),
        (layer(), {"a": None}, "compensate of layer 'a': expected what reads.*, got NoneType"),
        (layer(), {"a": [READER, READER]}, "each once: .*, got Linear, Linear. Try"),
        (layer(), {"b": READER}, r"compensate: expected paths of layers among \['a'\], got 'b'"),
        (layer(), {"a": nn.ReLU()}, r"got ReLU. Try: compensate=\{\"a\": model.readout\}"),
        (layer(), {"a": [nn.Linear(5, 1), None]}, "got Linear, NoneType"),
        (
            layer(),
            {"a": nn.Linear(4, 1)},
            r"readers of its 5 outputs, got Linear of \[4\]",
        ),
        (layer(), {"a": LinearReadout(10, 1)}, r"got LinearReadout of \[10\] inputs"),
        (layer(latent_dim=3, pool="flatten"), {"a": nn.Linear(5, 1)}, "of its 15 outputs"),
        (layer(latent_dim=3, pool="sum"), {"a": nn.Linear(15, 1)}, "of its 5 outputs"),
        (layer(), {"a": layer(4)}, r"got VariationalNeurons of \[4\] inputs"),
        # Layers that read it in ways that no weight undoes:
        (layer(), {"a": layer(5, posterior=Mine())}, r"VariationalNeurons of \[\] inputs"),
        (layer(), {"a": identity()}, r"VariationalNeurons of \[\] inputs"),
        (layer(), {"a": identity("input")}, r"VariationalNeurons of \[\] inputs"),
        (
            layer(posterior=NormalPosterior("shared")),
            {"a": nn.Linear(5, 1)},
            "expected scales that can follow their units, got one scale shared by all units",
        ),
    ],
)
def test_what_cannot_be_rescaled_is_refused(
    neurons: VariationalNeurons, readers: Any, text: str
) -> None:
    with pytest.raises(InputError, match=text):
        Rescaling({"a": neurons}, readers)


def test_uncompensated_a_shared_scale_is_no_hindrance() -> None:
    neurons = layer(posterior=NormalPosterior("shared")).double()
    before = neurons.posterior(torch.ones(1, 4))
    Rescaling({"a": neurons}, None)("a", torch.full((5,), 2.0), torch.ones(5))
    after = neurons.posterior(torch.ones(1, 4))
    torch.testing.assert_close(after.mean, 2 * before.mean)
    torch.testing.assert_close(after.variance, before.variance)
