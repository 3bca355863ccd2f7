from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import DeepRegression, Regression, StateSpace
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pyro_vdn.diagnostics import (
    UnitStatistics,
    Use,
    collapse_report,
    unit_responses,
    unit_statistics,
)
from pyro_vdn.errors import InputError
from pyro_vdn.nn import LearnedNormal, NormalPosterior, VariationalNeurons
from pyro_vdn.poutine import LayerRecord, deterministic, kl_weight, penalize, record

ROWS, FEATURES, UNITS = 37, 3, 5


class Net(pyro.nn.PyroModule):  # type: ignore[misc]
    """Neurons with a scale per input, behind dropout that evaluation must switch off."""

    def __init__(self, prior: nn.Module | None = None, latent_dim: int = 1) -> None:
        super().__init__()
        posterior = NormalPosterior("input", initial_scale=0.4)
        self.neurons = VariationalNeurons(
            FEATURES, UNITS, prior=prior, posterior=posterior, latent_dim=latent_dim
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        with pyro.plate("data", len(x), dim=-2):
            z = self.neurons(self.dropout(x))
            return pyro.sample("y", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=y)


@pytest.fixture
def data(double: None) -> tuple[Tensor, Tensor]:
    return torch.randn(ROWS, FEATURES), torch.randn(ROWS, 1)


def scattered(model: nn.Module) -> nn.Module:
    """Give every parameter a value that tells units apart."""
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.3 * torch.randn_like(value))
    return model


def measured(model: nn.Module, data: Any, **options: Any) -> UnitStatistics:
    return unit_statistics(model, NeuronGuide(model), data, use=False, **options)["neurons"]


def moments_by_hand(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        q, p = model.neurons.posterior(x), model.neurons.prior(x).expand((len(x), UNITS))
        return q.loc, q.scale, torch.distributions.kl_divergence(q, p)


@pytest.mark.parametrize("batch_size", [1, 10, ROWS])
def test_statistics_equal_those_of_all_rows_at_once(batch_size: int, data: Any) -> None:
    model = scattered(Net(LearnedNormal(initial_scale=0.7)))
    s = measured(model, DataLoader(TensorDataset(*data), batch_size=batch_size))
    loc, scale, kl = (value.numpy() for value in moments_by_hand(model, data[0]))
    root, prior = ROWS**0.5, model.neurons.prior(data[0]).scale.detach().numpy()
    assert s.rows == ROWS
    variance, place = (scale**2).mean(0), model.neurons.prior.loc.detach().numpy()
    expected = {
        "kl": kl.mean(0),
        "kl_error": kl.std(0, ddof=1) / root,
        "mu2": (loc**2).mean(0),
        "mu2_error": (loc**2).std(0, ddof=1) / root,
        "mu2_about_prior": ((loc - place) ** 2).mean(0),
        "scale": variance**0.5,
        "scale_error": (scale**2).std(0, ddof=1) / root / (2 * variance**0.5),
        "contraction": 1 - variance / prior**2,
        "loc_variance": loc.var(0),
        "information": 0.5 * np.log(1 + loc.var(0) / variance),
        "scale_variation": scale.std(0) / scale.mean(0),
        "prior_scale": prior,
        "active": kl.mean(0) > 1e-4,
    }
    found = s.to_arrays()
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)
        assert found[name].shape == (UNITS,)


def test_the_errors_are_those_of_repeated_data(double: None) -> None:
    model = scattered(Net())
    repeated = []
    for _ in range(300):
        x = torch.randn(50, FEATURES)
        loc, scale, kl = moments_by_hand(model, x)
        repeated.append([kl.mean(0), loc.square().mean(0), scale.square().mean(0).sqrt()])
    spread = np.array([[v.numpy() for v in row] for row in repeated]).std(0)
    s = measured(model, (torch.randn(5000, FEATURES), torch.randn(5000, 1)))
    for error, sd in zip((s.kl_error, s.mu2_error, s.scale_error), spread, strict=True):
        np.testing.assert_allclose(error * 10, sd, rtol=0.2)  # 5,000 rows against 50


def test_contraction_takes_the_spread_of_the_prior_not_its_place(data: Any) -> None:
    model = Net(LearnedNormal(initial_scale=0.5))
    with torch.no_grad():
        model.neurons.prior.loc.add_(30.0)
        for value in model.neurons.posterior.raw_scale.parameters():
            if value.dim() == 2:
                value.zero_()
    np.testing.assert_allclose(measured(model, data).contraction, 1 - 0.4**2 / 0.5**2, rtol=1e-6)


def test_several_latent_dimensions_are_averaged(data: Any) -> None:
    model = scattered(Net(latent_dim=3))
    s = measured(model, [tuple(value[:9] for value in data), tuple(value[9:] for value in data)])
    with torch.no_grad():
        q = model.neurons.posterior(data[0]).base_dist
    loc, variance = q.loc.var(0, correction=0), q.scale.square().mean(0)
    np.testing.assert_allclose(s.mu2, q.loc.square().mean((0, 2)))
    np.testing.assert_allclose(s.scale, q.scale.square().mean((0, 2)).sqrt())
    np.testing.assert_allclose(s.loc_variance, loc.mean(-1))
    np.testing.assert_allclose(s.information, 0.5 * (loc / variance).log1p().sum(-1))
    spread = q.scale.std(0, correction=0) / q.scale.mean(0)
    np.testing.assert_allclose(s.scale_variation, spread.mean(-1))


def test_latents_of_opposite_sign_do_not_cancel(data: Any) -> None:
    posterior = NormalPosterior("unit", initial_scale=0.4)
    layer = VariationalNeurons(FEATURES, UNITS, latent_dim=2, posterior=posterior)
    with torch.no_grad():
        linear = layer.posterior.loc
        weight = torch.randn(UNITS, 1, FEATURES)
        linear.weight.copy_(torch.cat([weight, -weight], 1).reshape(linear.weight.shape))
        linear.bias.zero_()
    with record() as seen:
        layer(data[0])
    s = UnitStatistics.of(seen[""])
    assert (s.information > 0.1).all()
    assert collapse_report(s).units("living") == {"": list(range(UNITS))}


def test_the_same_posterior_for_every_input_has_no_information(data: Any) -> None:
    model = scattered(Net())
    with torch.no_grad():
        model.neurons.posterior.loc.weight[2] = 0.0
        model.neurons.posterior.loc.bias[2] = 1.5
    s = measured(model, data)
    assert s.information[2] < 1e-12 < s.information[[0, 1, 3, 4]].min()
    assert s.kl[2] > 1.0


def test_one_row_tells_neither_errors_nor_answers(data: Any) -> None:
    model = scattered(Regression(FEATURES, num_units=UNITS))
    row = tuple(value[:1] for value in data)
    s = unit_statistics(model, NeuronGuide(model), row)["neurons"]
    unknown = ("kl_error", "mu2_error", "scale_error", "use_error")
    for name in (*unknown, "information", "scale_variation", "loc_variance"):
        assert np.isnan(getattr(s, name)).all()
    assert np.isfinite(s.use).all()
    report = collapse_report(s)
    assert report.units("living") == {"": list(range(UNITS))}
    assert report.undecided()[""].all()
    assert "it cannot tell which units are the same for every input" in " ".join(
        str(report).split()
    )


class Heavy(nn.Module):
    """A prior without a finite variance."""

    def forward(self, h: Tensor) -> Any:
        return dist.StudentT(1.5, h.new_zeros(()), h.new_ones(()))


def test_a_prior_without_variance_gives_no_contraction(data: Any) -> None:
    s = measured(Net(Heavy()), data)
    assert np.isnan(s.contraction).all()
    assert np.isnan(s.prior_scale).all()
    assert np.isfinite(s.kl).all()


# --- data, modes, noise ---


@pytest.mark.parametrize(
    "given",
    [
        lambda x, y: (x, y),
        lambda x, y: [(x[:10], y[:10]), (x[10:], y[10:])],
        lambda x, y: DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True),
        lambda x, y: TensorDataset(x, y)[:],
    ],
    ids=["tensors", "list", "shuffled loader", "dataset"],
)
def test_any_batches_give_the_same(given: Any, data: Any) -> None:
    model = scattered(Net())
    np.testing.assert_allclose(measured(model, given(*data)).kl, measured(model, data).kl)


WITHOUT_TARGETS: dict[str, Any] = {
    "a tensor": lambda x: x,
    "a tuple": lambda x: (x,),
    "tensors in a list": lambda x: [x[:10], x[10:]],
    "a loader of tensors": lambda x: DataLoader(x, batch_size=7),
    "a loader of a data set": lambda x: DataLoader(TensorDataset(x), batch_size=7),
}


@pytest.mark.parametrize("given", WITHOUT_TARGETS)
def test_without_use_inputs_alone_will_do(given: str, data: Any) -> None:
    model, inputs = scattered(Net()), WITHOUT_TARGETS[given](data[0])
    np.testing.assert_allclose(measured(model, inputs).kl, measured(model, data).kl)
    responses = unit_responses(model, NeuronGuide(model), inputs)["neurons"]
    expected = unit_responses(model, NeuronGuide(model), data)["neurons"]
    np.testing.assert_allclose(responses, expected)
    with pytest.raises(InputError, match=r"batches: expected batches .*\(x, y\)"):
        unit_statistics(model, NeuronGuide(model), inputs)


@pytest.mark.parametrize("batches", [[7], [("x",)], [(torch.zeros(2, 3), 1.0)], [[]]], ids=repr)
def test_what_is_no_batch_is_refused_without_use_too(batches: Any) -> None:
    with pytest.raises(InputError, match=r"pairs of tensors \(x, y\), or inputs x alone"):
        measured(Net(), batches)


def test_nothing_of_the_caller_is_changed(data: Any) -> None:
    model = scattered(Net())
    model.neurons.eval()
    loader = DataLoader(TensorDataset(*data), batch_size=9, shuffle=True)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    unit_statistics(model, NeuronGuide(model), loader)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert (model.training, model.dropout.training, model.neurons.training) == (True, True, False)
    assert all(value.grad is None for value in model.parameters())


def test_every_layer_of_a_stack_is_measured(data: Any) -> None:
    model = DeepRegression(FEATURES, num_units=(4, 2))
    found = unit_statistics(model, NeuronGuide(model), data, bands={"layers.1": (0.0, 9.0)})
    assert {path: len(s.kl) for path, s in found.items()} == {"layers.0": 4, "layers.1": 2}
    assert found["layers.0"].band_low is None
    assert found["layers.1"].band_high.tolist() == [9.0, 9.0]
    assert all(s.use is not None for s in found.values())


def test_a_second_instance_is_measured_with_its_own_parameters(data: Any) -> None:
    first, second = scattered(Regression(3)), scattered(Regression(3))
    alone = measured(second, data).kl
    pyro.clear_param_store()
    assert (measured(first, data).kl != alone).all()
    np.testing.assert_array_equal(measured(second, data).kl, alone)


# --- the table ---


def test_shares_count_bounds_as_inside(table: Any) -> None:
    s = table(mu2=[0.1, 0.2, 0.3, 0.4], band_low=[0.2] * 4, band_high=[0.3] * 4)
    assert s.below_band().tolist() == [True, False, False, False]
    assert s.above_band().tolist() == [False, False, False, True]
    assert s.band_shares() == (0.25, 0.5, 0.25)


def test_shares_are_those_of_units_exactly(table: Any) -> None:
    s = table(mu2=[0.1] * 7 + [0.25] + [0.5] * 2, band_low=0.2, band_high=0.3)
    assert s.band_shares() == (0.7, 0.1, 0.2)  # 1 - 0.7 - 0.2 is not 0.1


@pytest.mark.parametrize("kind", ["tensors", "numbers", "with a target"])
def test_bands_are_taken_in_any_form(kind: str, data: Any) -> None:
    band: Any = (
        (0.02, 0.3) if kind == "numbers" else (torch.full((5,), 0.02), torch.full((5,), 0.3))
    )
    band = (*band, torch.ones(5)) if kind == "with a target" else band
    s = measured(Net(), data, bands={"neurons": band})
    np.testing.assert_allclose([s.band_low, s.band_high], [[0.02] * 5, [0.3] * 5], rtol=1e-6)


@pytest.mark.parametrize(("threshold", "share"), [(None, 0.5), (1e-3, 0.25), (5e-5, 0.75)])
def test_the_threshold_itself_is_not_active(threshold: Any, share: float, table: Any) -> None:
    s = table(kl=[2.0, 1e-4, 3e-4, 0.0])
    assert s.active.tolist() == [True, False, True, False]
    assert s.active_share(threshold) == share


def test_rows_are_plain_and_in_unit_order(table: Any) -> None:
    rows = table(kl=[1.0, 0.0], use=[0.2, 0.1], use_error=[0.01, 0.02]).to_rows()
    assert [row["unit"] for row in rows] == [0, 1]
    assert json.loads(json.dumps(rows)) == rows
    assert (rows[1]["kl"], rows[1]["active"], rows[1]["use_error"]) == (0.0, False, 0.02)
    assert "band_low" not in rows[0]


def test_statistics_are_frozen(table: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        table().kl = np.zeros(1)


# --- refusals ---


def no_neurons(x: Tensor) -> None:
    pyro.sample("y", dist.Normal(x, 1.0))


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        (iter([]), "batches: expected batches .* that can be gone through again"),
        (torch.zeros(3, 3), "batches: .* got Tensor"),
        (7, "batches: .* got int"),
        ([], "batches: expected at least one row, got none"),
        ([torch.zeros(3, 3)], r"batches: expected batches that are pairs of tensors \(x, y\)"),
        ([(torch.zeros(3, 3),)], "batches: expected batches that are pairs"),
        ([(torch.zeros(3, 3), 1.0)], "batches: expected batches that are pairs"),
        ((torch.zeros(3, 3), torch.zeros(2, 1)), "x: expected inputs and targets of one number"),
        (
            (torch.zeros(1024, 3), torch.zeros(1500, 1)),
            r"x: .* shapes \[\(1024, 3\), \(1500, 1\)\]",
        ),
        ((torch.zeros(3, 3), torch.tensor(1.0)), r"x: .* shapes \[\(3, 3\), \(\)\]"),
        ((torch.full((3, 3), torch.nan), torch.zeros(3, 1)), r"x: .* nan at \(0, 0\)"),
    ],
)
def test_bad_batches_are_refused(batches: Any, text: str) -> None:
    model = Net()
    with pytest.raises(InputError, match=text):
        unit_statistics(model, NeuronGuide(model), batches)


def test_programs_without_layers_and_unknown_layers_are_refused(data: Any) -> None:
    with pytest.raises(InputError, match=r"guide: .* got one in which no layer .*NeuronGuide"):
        unit_statistics(no_neurons, no_neurons, data)
    with pytest.raises(InputError, match=r"bands: .* of \['neurons'\], got 'units'"):
        measured(Net(), data, bands={"units": (0.1, 0.2)})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"band": (0.1,)}, r"band: expected bounds \(low, high\), got 1"),
        ({"band": (0.1, torch.ones(4))}, "band: expected 5 units, as in the record, got 4"),
        ({"band": (0.3, 0.2)}, r"band: .* got 0.3 over 0.2 at \(0,\)"),
        ({"use": Use(np.ones(4), np.ones(5), 9)}, "use: expected 5 units, as in the record, got 4"),
    ],
)
def test_what_does_not_fit_the_record_is_refused(options: Any, text: str, data: Any) -> None:
    with record() as seen:
        Net()(data[0])
    with pytest.raises(InputError, match=text):
        UnitStatistics.of(seen["neurons"], **options)


def test_points_and_nothing_are_refused(data: Any) -> None:
    twin = deterministic(Net())
    with pytest.raises(InputError, match=r"units that are distributions, .* variance of the post"):
        measured(twin, data)
    with pytest.raises(InputError, match="record: expected at least one recorded row, got none"):
        UnitStatistics.of(LayerRecord())


def test_effects_around_the_model_are_measured_through(data: Any) -> None:
    """Weights and penalties change training, not what units do."""
    bare = scattered(Regression(FEATURES, num_units=UNITS))
    plain = unit_statistics(bare, NeuronGuide(bare), data)["neurons"]
    weighted = penalize(kl_weight(bare, 0.1), {"neurons": lambda q, p: q.mean.square().mean(0)})
    s = unit_statistics(weighted, NeuronGuide(weighted), data)["neurons"]
    np.testing.assert_array_equal(s.kl, plain.kl)
    np.testing.assert_allclose(s.use, plain.use)


def test_a_model_that_reads_missing_values_may_have_some() -> None:
    model = StateSpace(2, num_units=3)
    x, y = torch.randn(6, 8, 2), torch.randn(6, 8, 1)
    x[:, 3] = torch.nan
    y[0, 5] = torch.nan
    stats = unit_statistics(model, NeuronGuide(model), (x, y))["neurons"]
    assert bool(np.isfinite(stats.kl).all())
