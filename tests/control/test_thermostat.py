"""The thermostat against tables worked by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import DeepRegression, Regression
from torch import nn

from pyro_vdn.control import Thermostat, neuron_layers, range_error, regulated_weight
from pyro_vdn.control.controller import Seen
from pyro_vdn.control.layers import initial_scale_cost
from pyro_vdn.errors import InputError
from pyro_vdn.infer import LocalELBO
from pyro_vdn.nn import LearnedNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import kl_weight
from pyro_vdn.testing import NeuronStack

Stack = Callable[..., NeuronStack]
See = Callable[..., Seen]
Drive = Callable[..., None]
E = math.e


@pytest.mark.parametrize(
    ("kl", "error"),
    [
        (0.0, -1.0),
        (1e-30, -1.0),
        (0.1 / E**2, -1.0),
        (0.1 / E, -1.0),
        (0.1 / E**0.5, -0.5),
        (0.05, -0.6931471806),
        (0.1, 0.0),
        (0.2, 0.0),
        (0.4, 0.0),
        (0.4 * E**0.25, 0.25),
        (0.8, 0.6931471806),
        (0.4 * E, 1.0),
        (40.0, 1.0),
        (math.inf, 1.0),
    ],
)
def test_range_error(kl: float, error: float) -> None:
    mine = range_error(torch.tensor([kl]), 0.1, 0.4)
    torch.testing.assert_close(mine, torch.tensor([error]), rtol=0, atol=1e-9)


RULE: dict[str, Any] = {
    "low": 0.1,
    "high": 0.4,
    "rate": 0.5,
    "dead": 1e-3,
    "release": 0.25,
    "bounds": (0.01, 10.0),
    "ratio": (0.1, 10.0),
}


@pytest.mark.parametrize(
    ("weight", "kl", "new"),
    [
        (1.0, 0.1, 1.0),
        (1.0, 0.4, 1.0),
        (3.0, 0.2, 3.0),
        (1.0, 0.4 * E**0.5, 1.2840254167),  # exp(0.5 * 0.5)
        (1.0, 0.4 * E, 1.6487212707),  # exp(0.5)
        (1.0, 400.0, 1.6487212707),
        (2.0, 0.1 / E, 1.2130613194),  # 2 exp(-0.5)
        (1.0, 0.05, 0.7071067812),  # exp(-0.5 log 2)
        (1.0, 1e-3, 0.6065306597),  # at the threshold, not dead
        (1.0, 0.99e-3, 0.25),
        (1.0, 0.0, 0.25),
        (0.02, 0.0, 0.01),  # down to the least weight
        (0.04, 0.0, 0.01),
        (0.01, 0.2, 0.01),
        (8.0, 4.0, 10.0),  # up to the largest
        (10.0, 4.0, 10.0),
        (20.0, 0.2, 10.0),  # what lies outside comes back
        (1e-3, 0.2, 0.01),
    ],
)
def test_regulated_weight(weight: float, kl: float, new: float) -> None:
    mine = regulated_weight(torch.tensor([weight]), torch.tensor([kl]), **RULE)
    torch.testing.assert_close(mine, torch.tensor([new]), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("weights", "ratio", "new"),
    [
        ([1.0, 1.0, 1.0, 5.0], (0.75, 2.0), [1.5, 1.5, 1.5, 4.0]),  # mean 2
        ([1.0, 3.0, 2.0, 2.0], (0.5, 1.5), [1.0, 3.0, 2.0, 2.0]),  # at both ends
        ([1.0, 3.0, 2.0, 2.0], (1.0, 1.25), [2.0, 2.5, 2.0, 2.0]),
        ([0.04, 0.04, 0.04, 40.0], (0.1, 2.0), [0.253, 0.253, 0.253, 5.06]),  # 40 counts as 10
    ],
)
def test_weights_stay_within_a_ratio_of_their_mean(
    weights: list[float], ratio: tuple[float, float], new: list[float]
) -> None:
    kl = torch.full((4,), 0.2)  # in range: nothing else moves them
    mine = regulated_weight(torch.tensor(weights), kl, **RULE | {"ratio": ratio})
    torch.testing.assert_close(mine, torch.tensor(new), rtol=1e-9, atol=0)


def test_the_ratio_does_not_lead_out_of_the_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.exp(3 * torch.randn(100, 7, generator=generator))
    kls = torch.exp(3 * torch.randn(100, 7, generator=generator))
    rule = RULE | {"bounds": (0.2, 3.0), "ratio": (0.9, 1.2)}
    new = torch.stack([regulated_weight(*pair, **rule) for pair in zip(weights, kls, strict=True)])
    assert new.min() >= 0.2
    assert new.max() <= 3.0


def test_it_holds_each_layer_by_a_running_average(stack: Stack, see: See, drive: Drive) -> None:
    thermostat = Thermostat(
        stack(num_layers=2),
        low=0.5,
        high=1.0,
        margin=1.0,
        rate=0.5,
        initial_weight=1.0,
        every=2,
        momentum=0.5,
    )
    quiet = see("layers.1", kl=[0.75, 0.75, 0.75])
    drive(thermostat, see(kl=[E, 0.75, 0.5 / E]) | quiet)
    assert thermostat.weights["layers.0"].tolist() == [1.0] * 3  # not yet
    drive(thermostat, see(kl=[E, 0.75, 0.5 / E]) | quiet)
    assert thermostat.weights["layers.0"].tolist() == pytest.approx(
        [1.6487212707, 1.0, 0.6065306597]  # exp(0.5), 1, exp(-0.5)
    )
    drive(thermostat, see(kl=[1.0, 0.75, 0.5]) | quiet, steps=2)
    # The averages are (e + 1) / 2 and (0.5 / e + 0.5) / 2: errors log((e + 1) / 2) = 0.620115 and
    # that minus 1.
    assert thermostat.weights["layers.0"].tolist() == pytest.approx(
        [2.2480367, 1.0, 0.5016048], rel=1e-7
    )
    assert thermostat.weights["layers.1"].tolist() == [1.0] * 3


def test_it_steers_inside_its_range(stack: Stack, see: See, drive: Drive) -> None:
    settings = {"low": 0.5, "high": 2.0, "rate": 1.0, "initial_weight": 1.0, "every": 1}
    thermostat = Thermostat(stack(), margin=2.0**0.5, **settings)
    drive(thermostat, see(kl=[0.5, 1.0, 2.0]))
    half = 2**0.5  # it aims at sqrt(0.5) to sqrt(2), from which both ends are half of log 2 away
    assert thermostat.weights["layers.0"].tolist() == pytest.approx([1 / half, 1.0, half])


def test_a_dead_unit_is_released_at_every_act(stack: Stack, see: See, drive: Drive) -> None:
    thermostat = Thermostat(stack(), initial_weight=1.0, release=0.5, every=5, warmup=5, dead=1e-2)
    drive(thermostat, see(kl=[0.0, 0.5, 0.5]), steps=9)
    assert thermostat.weights["layers.0"].tolist() == [1.0, 1.0, 1.0]
    drive(thermostat, see(kl=[0.0, 0.5, 0.5]), steps=11)
    assert thermostat.weights["layers.0"].tolist() == [0.125, 1.0, 1.0]  # at steps 10, 15, 20


def test_act_without_observation_moves_nothing(stack: Stack) -> None:
    thermostat = Thermostat(stack(), every=1)
    thermostat.act()
    assert thermostat.weights["layers.0"].tolist() == pytest.approx([1e-2] * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_of_the_layer_s_dtype(dtype: torch.dtype, stack: Stack) -> None:
    weights = Thermostat(stack().to(dtype)).weights["layers.0"]
    assert weights.dtype == dtype
    assert not weights.requires_grad


def test_weights_are_live_in_the_loss(stack: Stack, see: See, drive: Drive) -> None:
    model, data = stack(num_layers=2), (torch.randn(6, 4), torch.randn(6, 2))
    thermostat = Thermostat(model, initial_weight=1.0, every=1, dead=1e-2)
    controlled = thermostat.wrap(model)

    def kl(program: Any) -> dict[str, torch.Tensor]:
        pyro.set_rng_seed(1)
        return LocalELBO().terms(program, NeuronGuide(program), *data).kl

    torch.testing.assert_close(kl(controlled), kl(model))
    drive(thermostat, see(kl=[0.0, 0.5, 9.0]) | see("layers.1", kl=[0.5, 0.5, 0.5]))
    assert thermostat.weights["layers.0"].tolist() == pytest.approx([0.5, 1.0, E**0.2])
    torch.testing.assert_close(kl(controlled), kl(kl_weight(model, thermostat.weights)))
    torch.testing.assert_close(
        kl(controlled)["layers.0"], kl(model)["layers.0"] * torch.tensor([0.5, 1.0, E**0.2])
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"low": 0.0}, "low: expected a number above 0, got 0.0"),
        ({"low": 2.0, "high": 1.5}, "low: expected less than high = 1.5, got 2. Try: low=0.75"),
        ({"low": 1.5, "high": 1.5}, "low: expected less than high = 1.5, got 1.5"),
        ({"dead": 0.05}, "dead: expected less than low = 0.05, got 0.05"),
        ({"rate": 0.0}, "rate: expected a number above 0, got 0.0"),
        ({"release": 0.0}, "release: expected a number above 0 and at most 1, got 0.0"),
        ({"release": 1.5}, "release: expected a number above 0 and at most 1, got 1.5"),
        ({"margin": 0.9}, "margin: expected a number of at least 1, got 0.9"),
        (
            {"low": 1.0, "high": 1.21, "margin": 1.11},
            r"margin: expected at most 1.1, which leaves no room between low = 1 and high = 1.21, "
            "got 1.11. Try: margin=1.05",
        ),
        ({"bounds": (0.0, 1.0)}, r"bounds\[0\]: expected a number above 0, got 0.0"),
        ({"bounds": (2.0, 1.0)}, r"bounds\[0\]: expected less than bounds\[1\] = 1, got 2"),
        ({"ratio": (0.0, 2.0)}, r"ratio\[0\]: expected a number above 0, got 0.0"),
        ({"ratio": (1.5, 2.0)}, r"ratio\[0\]: expected a number above 0 and at most 1, got 1.5"),
        ({"ratio": (0.5, 0.9)}, r"ratio\[1\]: expected a number of at least 1, got 0.9"),
        ({"ratio": (2.0, 0.5)}, r"ratio\[0\]: expected less than ratio\[1\] = 0.5, got 2"),
        ({"initial_weight": 20.0}, r"initial_weight: expected a number of at least 1e-06 and at "),
        ({"momentum": 0.0}, "momentum: expected a number above 0"),
    ],
)
def test_bad_settings(settings: dict[str, Any], text: str, stack: Stack) -> None:
    with pytest.raises(InputError, match=f"^{text}"):
        Thermostat(stack(), **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"low": 1.0, "high": 1.21, "margin": 1.1},  # steers at one point
        {"release": 1.0},
        {"ratio": (1.0, 1.5)},
        {"bounds": (1e-2, 1.0)},
        {"bounds": (1e-6, 1e-2)},
    ],
)
def test_settings_at_their_bounds_are_taken(settings: dict[str, Any], stack: Stack) -> None:
    assert Thermostat(stack(), **settings).weights["layers.0"].tolist() == pytest.approx([0.01] * 3)


# --- the ceiling and the scale a layer starts with ---


def layer_of(scale: float, prior: nn.Module | None = None, latent_dim: int = 1) -> dict[str, Any]:
    posterior = NormalPosterior(initial_scale=scale)
    return {"a": VariationalNeurons(2, 2, latent_dim=latent_dim, prior=prior, posterior=posterior)}


@pytest.mark.parametrize(
    ("layers", "high", "text"),
    [
        # The published contradiction: a ceiling of 0.30 below the 0.32 of a scale of 0.5.
        (layer_of(0.5), 0.30, r"0.318 nats, what the initial scale 0.5 of layer 'a' costs alone"),
        (layer_of(0.5), 0.318, "0.318 nats"),
        (layer_of(0.5, latent_dim=3), 0.95, "0.954 nats"),
        (layer_of(1.0, LearnedNormal(initial_scale=2.0)), 0.31, "0.318 nats"),
        (layer_of(0.1), 1.5, "1.808 nats"),
    ],
)
def test_a_ceiling_below_the_initial_scale_s_cost_is_refused(
    layers: dict[str, Any], high: float, text: str
) -> None:
    with pytest.raises(InputError, match=f"high: expected at least {text}.*got {high:g}. Try"):
        Thermostat(layers, high=high)


@pytest.mark.parametrize(
    ("layers", "high"),
    [(layer_of(0.5), 0.3182), (layer_of(1.0), 0.1), (layer_of(0.5, latent_dim=3), 0.955)],
)
def test_a_ceiling_above_it_is_taken(layers: dict[str, Any], high: float) -> None:
    assert Thermostat(layers, high=high).high == high


@pytest.mark.parametrize(
    ("layers", "high"),
    [
        (layer_of(1.0), 1.5),
        (layer_of(0.5), 1.5),
        (layer_of(0.1), 2 * 1.8075850930),  # (0.1^2 - 1) / 2 - log 0.1
        ({"b": layer_of(0.3)["a"], **layer_of(0.1)}, 2 * 1.8075850930),
        (layer_of(0.1, latent_dim=3), 6 * 1.8075850930),
    ],
)
def test_the_ceiling_leaves_room_for_the_initial_scale(layers: dict[str, Any], high: float) -> None:
    assert Thermostat(layers).high == pytest.approx(high)


def test_the_deep_model_is_taken_as_it_comes() -> None:
    model = DeepRegression(3)
    thermostat = Thermostat(model)
    costs = [initial_scale_cost(layer) for layer in neuron_layers(model).values()]
    largest = max(cost[1] for cost in costs if cost is not None)
    assert largest > 1.5  # the plain default would be refused
    assert thermostat.high == pytest.approx(2 * largest)


@pytest.mark.parametrize("make", [Regression, DeepRegression])
def test_the_hint_of_the_ceiling_is_one_that_works(make: Any) -> None:
    with pytest.raises(InputError, match="Try: high=") as caught:
        Thermostat(make(3), high=0.2)
    hint = float(str(caught.value).partition("Try: high=")[2].partition(",")[0])
    assert Thermostat(make(3), high=hint).high == hint
