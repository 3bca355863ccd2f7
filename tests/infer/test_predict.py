"""Posterior prediction: shapes, mixture densities, moments, quantiles, closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from pyro_vdn.guides import NeuronGuide, without_neurons
from pyro_vdn.models import DeepRegression, Forecaster, Regression, StateSpace
from torch import Tensor, nn

import pyro_vdn.infer
from pyro_vdn.errors import InputError
from pyro_vdn.infer import SVI, LocalELBO, Prediction, joint_draws, log_density, predict
from pyro_vdn.infer.plates import guess_max_plate_nesting
from pyro_vdn.infer.predict import draw_outcomes
from pyro_vdn.infer.prediction import mixture_log_probs
from pyro_vdn.nn import (
    AutoregressiveNormal,
    CategoricalLikelihood,
    LinearReadout,
    MultivariateNormalLikelihood,
    NormalLikelihood,
    NormalPosterior,
    OutputScale,
    StandardNormal,
    VariationalNeurons,
)
from pyro_vdn.poutine import clamp, deterministic, dropout
from pyro_vdn.testing import randomise

OUTPUTS = 3


class Readout(PyroModule):
    """Neurons, a linear readout and a normal likelihood: the closed form is exact."""

    def __init__(self, *, joint: bool = False) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(2, 4, posterior=NormalPosterior("input"))
        self.readout = LinearReadout(4, OUTPUTS)
        scale = OutputScale(OUTPUTS, initial_scale=0.6)
        self.joint = joint
        self.likelihood: nn.Module = (
            MultivariateNormalLikelihood(scale, covariance_rank=1)
            if joint
            else NormalLikelihood(scale)
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-2], dim=-2):
            z = self.neurons(x)
            offer = self.readout.offer(z, self.likelihood)
            obs = y if y is None or not self.joint else y.unsqueeze(-2)
            return pyro.sample("y", self.likelihood(self.readout(z)), obs=obs, infer=offer)


class Shifted(PyroModule):
    """A global latent beside the neurons, drawn by a guide of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(2, 4)
        self.readout = nn.Linear(4, OUTPUTS)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        shift = pyro.sample("shift", dist.Normal(0.0, 2.0))
        with pyro.plate("data", x.shape[-2], dim=-2):
            loc = 0.01 * self.readout(self.neurons(x)) + shift
            return pyro.sample("y", dist.Normal(loc, 0.1), obs=y)


class TwoInputs(PyroModule):
    """Two inputs of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.neurons = VariationalNeurons(2 + 6, 4)
        self.readout = nn.Linear(4, OUTPUTS)

    def forward(self, x: Tensor, images: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", x.shape[-2], dim=-2):
            h = torch.cat([x, images.flatten(-2)], -1)
            return pyro.sample("y", dist.Normal(self.readout(self.neurons(h)), 1.0), obs=y)


def make(model: Any) -> tuple[Any, NeuronGuide]:
    randomise(pyro.poutine.unwrap(model))
    return model, NeuronGuide(model)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 2)


@pytest.fixture
def y() -> Tensor:
    return torch.randn(5, OUTPUTS)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
@pytest.mark.parametrize("num_samples", [1, 6])
@pytest.mark.parametrize("joint", [False, True])
def test_shapes(x: Tensor, y: Tensor, batch_size: int, num_samples: int, joint: bool) -> None:
    model, guide = make(Readout(joint=joint))
    prediction = predict(model, guide, x, y=y, num_samples=num_samples, batch_size=batch_size)
    assert prediction.draws.shape == (num_samples, 5, OUTPUTS)
    assert prediction.mean.shape == prediction.log_prob_per_output.shape == (5, OUTPUTS)
    assert prediction.log_prob_joint.shape == (5,)
    assert prediction.quantiles([0.1, 0.9]).shape == (2, 5, OUTPUTS)
    form = prediction.closed_form
    assert form.draws.shape == (num_samples, 5, OUTPUTS)
    assert form.mean.shape == form.variance.shape == form.log_prob_per_output.shape == (5, OUTPUTS)
    assert form.log_prob_joint.shape == (5,)
    assert not prediction.draws.requires_grad
    assert not form.log_prob_joint.requires_grad


def test_without_targets_there_is_no_density(x: Tensor) -> None:
    prediction = predict(*make(Readout()), x, num_samples=3, batch_size=2)
    assert prediction.log_prob_per_output is None
    assert prediction.log_prob_joint is None
    assert prediction.closed_form.log_prob_per_output is None
    assert prediction.closed_form.log_prob_joint is None


def test_batches_change_nothing_but_the_noise(x: Tensor, y: Tensor) -> None:
    model, guide = make(deterministic(Readout()))
    whole = predict(model, guide, x, y=y, num_samples=2)
    parts = predict(model, guide, x, y=y, num_samples=2, batch_size=2)
    torch.testing.assert_close(parts.log_prob_joint, whole.log_prob_joint)
    torch.testing.assert_close(parts.closed_form.mean, whole.closed_form.mean)
    torch.testing.assert_close(parts.closed_form.variance, whole.closed_form.variance)


def test_rows_keep_their_order() -> None:
    model = Shifted()
    with torch.no_grad():
        model.readout.weight.fill_(100.0)
        model.neurons.posterior.loc.weight.fill_(10.0)
    twin = deterministic(model)
    rows = torch.tensor([[3.0, 3.0], [-3.0, -3.0], [6.0, 6.0]])
    mean = predict(twin, NeuronGuide(twin), rows, num_samples=50, batch_size=2).mean[:, 0]
    assert mean[1] < mean[0] < mean[2]


def test_mixture_densities_by_hand(x: Tensor, y: Tensor) -> None:
    """Average densities over draws: of a row's product, and of each output by itself."""
    model, guide = make(Readout())
    pyro.set_rng_seed(1)
    prediction = predict(model, guide, x, y=y, num_samples=4)
    pyro.set_rng_seed(1)
    eps = torch.randn(4, 5, 4)
    with torch.no_grad():
        q = model.neurons.posterior(x)
        likelihood = model.likelihood(model.readout(q.mean + q.stddev * eps))
        density = likelihood.log_prob(y).exp()  # (draws, rows, outputs)
    torch.testing.assert_close(prediction.log_prob_per_output, density.mean(0).log())
    torch.testing.assert_close(prediction.log_prob_joint, density.prod(-1).mean(0).log())
    assert not torch.allclose(prediction.log_prob_joint, prediction.log_prob_per_output.sum(-1))


@pytest.mark.parametrize("joint", [False, True])
def test_mixture_moments_and_closed_form_agree(x: Tensor, y: Tensor, joint: bool) -> None:
    """For a linear readout into a normal the closed form is exact: many draws meet it."""
    prediction = predict(*make(Readout(joint=joint)), x, y=y, num_samples=20_000)
    form = prediction.closed_form
    torch.testing.assert_close(prediction.mean, form.mean, atol=0.05, rtol=0.0)
    torch.testing.assert_close(prediction.variance, form.variance, atol=0.02, rtol=0.04)
    torch.testing.assert_close(form.draws.mean(0), form.mean, atol=0.05, rtol=0.0)
    torch.testing.assert_close(form.draws.var(0), form.variance, atol=0.02, rtol=0.04)
    torch.testing.assert_close(
        prediction.log_prob_per_output, form.log_prob_per_output, atol=0.05, rtol=0.0
    )
    torch.testing.assert_close(prediction.log_prob_joint, form.log_prob_joint, atol=0.12, rtol=0.0)


def test_closed_form_draws_are_correlated_like_the_mixture(x: Tensor) -> None:
    prediction = predict(*make(Readout()), x[:1], num_samples=20_000)
    mixture, form = (
        torch.corrcoef(d[:, 0].T) for d in (prediction.draws, prediction.closed_form.draws)
    )
    torch.testing.assert_close(mixture, form, atol=0.04, rtol=0.0)
    assert (mixture - torch.eye(OUTPUTS)).abs().max() > 0.2


def test_closed_form_of_the_twin_is_its_likelihood(x: Tensor, y: Tensor) -> None:
    prediction = predict(*make(deterministic(Readout())), x, y=y, num_samples=2)
    form = prediction.closed_form
    torch.testing.assert_close(form.log_prob_per_output, prediction.log_prob_per_output)
    torch.testing.assert_close(form.log_prob_joint, prediction.log_prob_joint)


def test_relu_into_student_t_matches_moments() -> None:
    model, x = Regression(2, num_units=6), torch.randn(4, 2)
    randomise(model)
    with torch.no_grad():
        model.likelihood.df.raw.fill_(4.0)  # many degrees of freedom: moments are quickly met
    prediction = predict(model, NeuronGuide(model), x, num_samples=40_000)
    form = prediction.closed_form
    torch.testing.assert_close(prediction.mean, form.mean, atol=0.03, rtol=0.0)
    torch.testing.assert_close(prediction.variance, form.variance, atol=0.02, rtol=0.05)


def test_forecaster_predicts_trajectories() -> None:
    model = Forecaster(26, 4, hidden=6, num_units=5, rank=2, kernel_size=5)
    x, y = torch.randn(3, 26).cumsum(-1), torch.randn(3, 4)
    prediction = predict(model, NeuronGuide(model), x, y=y, num_samples=7, batch_size=2)
    assert prediction.draws.shape == prediction.closed_form.draws.shape == (7, 3, 4)
    assert prediction.log_prob_joint.shape == (3,)


@pytest.mark.parametrize(
    ("make_model", "known"),
    [
        (Readout, True),
        (lambda: clamp(Readout(), {"neurons": {0: "prior", 1: "mean"}}), True),
        (lambda: dropout(Readout(), 0.2), False),
        (lambda: DeepRegression(2, OUTPUTS, num_units=(4, 4)), False),
        (Shifted, False),
    ],
    ids=["one layer", "clamped", "dropout", "two layers", "global latent"],
)
def test_closed_form_is_for_one_layer_of_normal_neurons(
    x: Tensor, y: Tensor, make_model: Any, known: bool
) -> None:
    prediction = predict(*make(make_model()), x, y=y, num_samples=3, batch_size=2)
    assert (prediction.closed_form is not None) == known
    assert prediction.log_prob_joint.shape == (5,)
    assert torch.isfinite(prediction.log_prob_joint).all()


def test_guides_that_take_no_offer_have_draws_alone(x: Tensor, y: Tensor) -> None:
    model = Readout()

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("neurons.units", 4, dim=-1):
            pyro.sample("neurons.z", dist.Normal(torch.ones(len(x), 4), 1e-6))

    prediction = predict(model, guide, x, y=y, num_samples=3)
    with torch.no_grad():
        expected = model.likelihood(model.readout(torch.ones(5, 4))).log_prob(y)
    torch.testing.assert_close(prediction.log_prob_per_output, expected, atol=1e-4, rtol=0.0)
    assert prediction.closed_form is None


@pytest.mark.parametrize("joint", [False, True])
def test_draws_alone_are_those_of_predict(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = (
        Forecaster(8, 3, num_units=2, hidden=4, kernel_size=3)
        if joint
        else Regression(8, 3, num_units=2)
    )
    randomise(model)
    guide, x = NeuronGuide(model), torch.randn(5, 8)
    torch.manual_seed(3)
    expected = predict(model, guide, x, num_samples=6).draws
    torch.manual_seed(3)
    assert torch.equal(draw_outcomes(model, guide, x, 6), expected)
    monkeypatch.setattr(joint_draws, "CHUNK_ELEMENTS", 2000)
    cut = draw_outcomes(model, guide, x, 600, batch_size=2)
    many = predict(model, guide, x, num_samples=600)
    error = (2 * many.variance / 600).sqrt()
    assert ((cut.mean(0) - many.mean).abs() < 5 * error).all()


def test_quantiles_are_those_of_the_draws() -> None:
    prediction = Prediction(torch.arange(11.0)[:, None, None].expand(11, 2, 1))
    levels = [0.0, 0.25, 0.5, 1.0]
    torch.testing.assert_close(
        prediction.quantiles(levels)[:, 1, 0], torch.tensor([0.0, 2.5, 5.0, 10.0])
    )


@pytest.mark.parametrize("levels", [[-0.1], [0.5, 1.1], [math.nan]])
def test_refuses_levels_outside_the_unit_interval(levels: Sequence[float]) -> None:
    with pytest.raises(InputError, match=r"levels: expected values in \[0, 1\]"):
        Prediction(torch.zeros(3, 2, 1)).quantiles(levels)


def test_several_inputs(y: Tensor) -> None:
    model, guide = make(TwoInputs())
    inputs = [torch.randn(5, 2), torch.randn(5, 2, 3)]
    prediction = predict(model, guide, inputs, y=y, num_samples=4, batch_size=2)
    assert prediction.draws.shape == (4, 5, OUTPUTS)
    per_output, joint = log_density(model, guide, inputs, y, num_samples=4, batch_size=2)
    assert per_output.shape == (5, OUTPUTS)
    assert joint.shape == (5,)


def test_a_global_latent_is_drawn_by_its_guide(x: Tensor) -> None:
    model = Shifted()
    others = AutoNormal(without_neurons(model), init_scale=0.1)
    guide = NeuronGuide(model, others=others)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss=LocalELBO())
    for _ in range(150):
        svi.step(x, torch.full((5, OUTPUTS), 4.0))
    prediction = predict(model, guide, x, y=torch.full((5, OUTPUTS), 4.0), num_samples=400)
    torch.testing.assert_close(prediction.mean, torch.full((5, OUTPUTS), 4.0), atol=0.2, rtol=0.0)
    assert prediction.log_prob_joint.shape == (5,)
    prior = predict(model, NeuronGuide(model), x, num_samples=400)  # no guide: the prior is kept
    assert prior.draws.std() > 1.0 > prediction.draws.std()
    shared = torch.corrcoef(prior.draws[:, :, 0].T)
    assert shared.min() > 0.98  # one draw for all rows


def test_classes() -> None:
    class Classes(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.neurons = VariationalNeurons(2, 4)
            self.readout = nn.Linear(4, 6)
            self.likelihood = CategoricalLikelihood()

        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            with pyro.plate("data", x.shape[-2], dim=-2):
                logits = self.readout(self.neurons(x))
                return pyro.sample("y", self.likelihood(logits), obs=y)

    model, guide = make(Classes())
    x, y = torch.randn(5, 2), torch.randint(0, 6, (5, 1))
    prediction = predict(model, guide, x, y=y, num_samples=8, batch_size=3)
    assert prediction.draws.shape == (8, 5, 1)
    torch.testing.assert_close(prediction.log_prob_per_output[:, 0], prediction.log_prob_joint)
    assert (prediction.log_prob_joint < 0).all()


def test_log_density_is_that_of_predict(x: Tensor, y: Tensor) -> None:
    model, guide = make(Readout())
    form = predict(model, guide, x, y=y, num_samples=2).closed_form
    per_output, joint = log_density(model, guide, x, y, batch_size=2)
    torch.testing.assert_close(per_output, form.log_prob_per_output)
    torch.testing.assert_close(joint, form.log_prob_joint)


def test_log_density_of_draws_where_there_is_no_closed_form(x: Tensor, y: Tensor) -> None:
    model, guide = make(dropout(Readout(), 0.3))
    densities = log_density(model, guide, x, y, num_samples=4000)
    prediction = predict(model, guide, x, y=y, num_samples=4000)
    torch.testing.assert_close(densities[0], prediction.log_prob_per_output, atol=0.1, rtol=0.0)
    torch.testing.assert_close(densities[1], prediction.log_prob_joint, atol=0.3, rtol=0.0)


def test_a_joint_distribution_without_marginals_has_no_density_per_output() -> None:
    outcome = dist.MultivariateNormal(torch.zeros(7, 5, 1, 2), torch.eye(2))
    per_output, joint = mixture_log_probs(outcome, torch.zeros(5, 2))
    assert per_output is None
    torch.testing.assert_close(joint, torch.full((5,), -math.log(2 * math.pi)))


def test_plate_nesting_leaves_the_random_state_alone(x: Tensor) -> None:
    model = Readout()
    state = torch.get_rng_state()
    assert guess_max_plate_nesting(model, [x]) == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert guess_max_plate_nesting(lambda: None, []) == 0


@pytest.mark.parametrize("rows", [(5, 4), (0, 0), (5, 0)])
def test_refuses_unequal_or_no_rows(rows: tuple[int, int]) -> None:
    model, guide = make(Readout())
    x, y = torch.zeros(rows[0], 2), torch.zeros(rows[1], OUTPUTS)
    for call in (lambda: predict(model, guide, x, y=y), lambda: log_density(model, guide, x, y)):
        with pytest.raises(
            InputError, match="x: expected inputs and targets of one number of rows"
        ):
            call()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["x", "y"])
def test_refuses_values_that_are_not_finite(x: Tensor, y: Tensor, bad: float, where: str) -> None:
    model, guide = make(Readout())
    {"x": x, "y": y}[where][3, 1] = bad
    for call in (lambda: predict(model, guide, x, y=y), lambda: log_density(model, guide, x, y)):
        with pytest.raises(InputError, match=rf"{where}: expected finite .* at \(3, 1\)"):
            call()


def test_names_the_input_that_is_not_finite() -> None:
    model, guide = make(TwoInputs())
    images = torch.zeros(5, 2, 3)
    images[2, 1, 0] = math.nan
    with pytest.raises(InputError, match=r"x\[1\]: expected finite values, got nan at \(2, 1, 0\)"):
        predict(model, guide, [torch.zeros(5, 2), images])


@pytest.mark.parametrize("joint", [False, True])
def test_refuses_targets_of_another_shape(x: Tensor, joint: bool) -> None:
    model, guide = make(Shifted() if not joint else Readout(joint=True))
    with pytest.raises(InputError, match=r"y: expected shape \(5, 3\), got shape \(5, 1\)"):
        predict(model, guide, x, y=torch.zeros(5, 1), num_samples=2)


def test_refuses_an_unknown_site(x: Tensor) -> None:
    with pytest.raises(InputError, match=r"site: expected one of .*'y'.*, got 'outcome'"):
        predict(*make(Readout()), x, site="outcome")


@pytest.mark.parametrize("size", ["num_samples", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_refuses_sizes_that_are_not_positive(x: Tensor, size: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{size}: expected a positive integer"):
        predict(*make(Readout()), x, **{size: value})


def test_a_global_latent_is_shared_by_all_batches() -> None:
    class WithGlobal(pyro.nn.PyroModule):
        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            theta = pyro.sample("theta", dist.Normal(0.0, 100.0))
            with pyro.plate("data", x.shape[-2], dim=-2):
                return pyro.sample("y", dist.Normal(theta + x, 0.01), obs=y)

    model = WithGlobal()
    prediction = predict(model, NeuronGuide(model), torch.zeros(5, 1), num_samples=30, batch_size=2)
    assert prediction.draws.std(1).max() < 0.1
    assert prediction.draws.std(0).min() > 10.0


@pytest.mark.parametrize("function", ["predict", "log_density", "predict_closed_form"])
def test_targets_of_another_shape_are_refused(function: str) -> None:
    model = Regression(3, 2)
    call = getattr(pyro_vdn.infer, function)
    arguments = (torch.zeros(4, 1),) if function == "log_density" else ()
    keywords = {} if function == "log_density" else {"y": torch.zeros(4, 1)}
    with pytest.raises(InputError, match=r"y: expected shape \(4, 2\), got shape \(4, 1\)"):
        call(model, NeuronGuide(model), torch.zeros(4, 3), *arguments, **keywords)


def sequences(**changes: Any) -> tuple[Any, NeuronGuide]:
    return make(StateSpace(2, OUTPUTS, **{"num_units": 4, "hidden": 5, **changes}))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("observation", ["normal", "negative_binomial"])
def test_shapes_of_sequences(batch_size: int, steps: int, observation: Any) -> None:
    model, guide = sequences(observation=observation)
    x, y = torch.randn(5, steps, 2), torch.ones(5, steps, OUTPUTS)
    prediction = predict(model, guide, x, y=y, num_samples=6, batch_size=batch_size)
    assert prediction.draws.shape == (6, 5, steps, OUTPUTS)
    assert prediction.mean.shape == prediction.log_prob_per_output.shape == (5, steps, OUTPUTS)
    assert prediction.log_prob_joint.shape == (5,)
    assert prediction.closed_form is None
    per_output, joint = log_density(model, guide, x, y, num_samples=6, batch_size=batch_size)
    assert per_output.shape == (5, steps, OUTPUTS)
    assert joint.shape == (5,)


@pytest.mark.parametrize("prior", [lambda: None, StandardNormal], ids=["memory", "none"])
def test_densities_of_sequences_by_hand(prior: Any) -> None:
    """The joint density is that of all steps; what is missing is NaN by itself, left out of it."""
    model, guide = sequences(prior=prior())
    x, y = torch.randn(3, 6, 2), torch.randn(3, 6, OUTPUTS)
    x[0, 2], y[1, 3, 1], y[2] = math.nan, math.nan, math.nan
    pyro.set_rng_seed(1)
    prediction = predict(model, guide, x, y=y, num_samples=5)
    pyro.set_rng_seed(1)
    with torch.no_grad(), pyro.plate("draws", 5, dim=-4):
        z = pyro.poutine.trace(guide).get_trace(x).nodes["neurons.z"]["value"]
        log_prob = model.likelihood(model.readout(z)).log_prob(y)  # (draws, rows, time, outputs)
    per_output = log_prob.exp().mean(0).log()
    joint = log_prob.nan_to_num(nan=0.0).sum((-2, -1)).exp().mean(0).log()
    torch.testing.assert_close(prediction.log_prob_per_output, per_output, equal_nan=True)
    torch.testing.assert_close(prediction.log_prob_joint, joint)
    assert (prediction.log_prob_per_output.isnan() == y.isnan()).all()
    assert prediction.log_prob_joint[2] == 0


def test_hyperparameters_are_shared_by_all_batches() -> None:
    prior = AutoregressiveNormal(4, phi=dist.Uniform(0.0, 1.0), scale=dist.LogNormal(0.0, 1.0))
    model, guide = sequences(prior=prior)
    seen = []

    class Watch(pyro.poutine.messenger.Messenger):
        def _pyro_post_sample(self, msg: Any) -> None:
            if msg["name"] == "neurons.prior.scale" and msg["value"].dim() > 1:
                seen.append(msg["value"].flatten())

    with Watch():
        predict(model, guide, torch.randn(5, 7, 2), num_samples=6, batch_size=2)
    assert len(seen) >= 3
    assert len(seen[0]) == 6 * 4
    for value in seen[1:]:
        torch.testing.assert_close(value, seen[0], rtol=0, atol=0)


def test_a_joint_outcome_that_is_missing_in_part_is_missing() -> None:
    outcome = dist.MultivariateNormal(torch.randn(7, 5, 1, 2), torch.eye(2))
    y = torch.randn(5, 2)
    full = mixture_log_probs(outcome, y)[1]
    y[3] = math.nan
    _, joint = mixture_log_probs(outcome, y)
    assert joint[3] == 0
    torch.testing.assert_close(joint[:3], full[:3])
    y[1, 0] = math.nan
    _, joint = mixture_log_probs(outcome, y)
    assert joint[1] == joint[3] == 0
    torch.testing.assert_close(joint[0], full[0])


@pytest.mark.parametrize("method", ["x", "y"])
def test_nan_is_for_models_that_read_it(method: str) -> None:
    model, guide = make(Readout())
    given = {"x": torch.randn(5, 2), "y": torch.randn(5, OUTPUTS)}
    given[method][1, 1] = math.nan
    with pytest.raises(InputError, match=f"{method}: expected finite values, got nan at"):
        predict(model, guide, given["x"], y=given["y"])
    reader, guide = sequences()
    given = {"x": torch.randn(5, 7, 2), "y": torch.randn(5, 7, OUTPUTS)}
    given[method][1, 1] = math.nan
    twin = deterministic(reader)  # seen through an effect
    assert torch.isfinite(predict(twin, NeuronGuide(twin), given["x"], num_samples=2).draws).all()
    given[method][1, 1] = math.inf
    with pytest.raises(InputError, match=f"{method}: expected finite values, or NaN"):
        log_density(reader, guide, given["x"], given["y"])


def test_refuses_an_outcome_without_rows() -> None:
    def model(x: Tensor) -> Tensor:
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        with pyro.plate("outputs", OUTPUTS, dim=-1):
            return pyro.sample("y", dist.Normal(shift, 1.0))

    with pytest.raises(InputError, match="site 'y': expected 5 rows in the outermost plate"):
        predict(model, lambda x: pyro.sample("shift", dist.Normal(0.0, 1.0)), torch.randn(5, 2))


def test_refuses_an_outcome_of_several_event_dimensions(x: Tensor) -> None:
    def model(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-2):
            loc = x[:, None, None].expand(-1, 1, 4, -1)
            return pyro.sample("y", dist.Normal(loc, 1.0).to_event(2))

    with pytest.raises(InputError, match=r"at most one event dimension.* event shape \(4, 2\)"):
        predict(model, lambda x: None, x)
