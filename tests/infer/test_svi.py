"""SVI that trains what it is given, in every parameter mode, or says why it cannot."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import RenyiELBO, ReweightedWakeSleep, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from pyro_vdn.guides import NeuronGuide, without_neurons
from pyro_vdn.models import Regression, StateSpace
from torch import Tensor, nn

from pyro_vdn.errors import InputError, NoTrainingError
from pyro_vdn.infer import SVI, LocalELBO, PACmELBO, predict
from pyro_vdn.nn import VariationalNeurons
from pyro_vdn.poutine import kl_weight

Make = Callable[[nn.Module], Any]


class Net(PyroModule):
    """Parameters of every kind: of plain modules, of neurons, direct ones, constrained ones."""

    def __init__(self, *, with_shift: bool = False) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(3, 5), nn.Tanh())
        self.neurons = VariationalNeurons(5, 4)
        self.readout = nn.Linear(4, 1)
        self.bias = nn.Parameter(torch.zeros(1))
        self.noise = PyroParam(torch.tensor(0.5), constraint=constraints.positive)
        self.with_shift = with_shift

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        shift = pyro.sample("shift", dist.Normal(0.0, 10.0)) if self.with_shift else 0.0
        with pyro.plate("data", x.shape[-2], dim=-2):
            loc = self.readout(self.neurons(self.encode(x))) + self.bias + shift
            return pyro.sample("y", dist.Normal(loc, self.noise), obs=y)


def pyro_adam(module: nn.Module) -> Any:
    return pyro.optim.Adam({"lr": 0.05})


def torch_adam(module: nn.Module) -> Any:
    return torch.optim.Adam(module.parameters(), lr=0.05)


OPTIMISERS = pytest.mark.parametrize("make_optim", [pyro_adam, torch_adam])


@pytest.fixture(params=["global", "local"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    with pyro.settings.context(module_local_params=request.param == "local"):
        yield request.param


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    return torch.randn(10, 3), torch.randn(10, 1)


def values_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def unmoved(module: nn.Module, before: dict[str, Tensor]) -> list[str]:
    return [name for name, value in values_of(module).items() if torch.equal(value, before[name])]


@OPTIMISERS
@pytest.mark.parametrize(
    "loss", [Trace_ELBO(), TraceMeanField_ELBO(), RenyiELBO(num_particles=2), LocalELBO()]
)
def test_every_parameter_moves(mode: str, make_optim: Make, loss: Any, data: Any) -> None:
    model = Net()
    before = values_of(model)
    svi = SVI(model, NeuronGuide(model), make_optim(model), loss=loss)
    assert math.isfinite(svi.step(*data))
    assert unmoved(model, before) == []
    assert all(value.grad is None for value in model.parameters())


@OPTIMISERS
def test_second_instances_train_alone(mode: str, make_optim: Make, data: Any) -> None:
    first = Net()
    SVI(first, NeuronGuide(first), make_optim(first), loss=LocalELBO()).step(*data)
    first_values = values_of(first)
    for _ in range(2):
        model = Net()
        before = values_of(model)
        svi = SVI(model, NeuronGuide(model), make_optim(model), loss=LocalELBO())
        svi.step(*data)
        assert unmoved(model, before) == []
        assert model.noise.item() != 0.5
    assert len(unmoved(first, first_values)) == len(first_values)


@OPTIMISERS
def test_first_instance_trains_on_after_a_second(make_optim: Make, data: Any) -> None:
    first, second = Net(), Net()
    svi = SVI(first, NeuronGuide(first), make_optim(first), loss=LocalELBO())
    svi.step(*data)
    other = SVI(second, NeuronGuide(second), make_optim(second), loss=LocalELBO())
    other.step(*data)
    first_values, second_values = values_of(first), values_of(second)
    svi.step(*data)
    assert unmoved(first, first_values) == []
    assert len(unmoved(second, second_values)) == len(second_values)


def test_second_instance_trains_as_if_it_were_the_first(data: Any) -> None:
    def losses() -> list[float]:
        pyro.set_rng_seed(3)
        model = kl_weight(Net(), 0.1)
        svi = SVI(model, NeuronGuide(model), pyro_adam(nn.Identity()), loss=Trace_ELBO())
        return [svi.step(*data) for _ in range(3)]

    assert losses() == losses()


def test_second_fit_of_one_instance_goes_on(data: Any) -> None:
    for _ in range(2):  # the first instance has the global store, the second one its own
        model = Net()
        for _ in range(2):
            before = values_of(model)
            svi = SVI(model, NeuronGuide(model), pyro_adam(model), loss=LocalELBO())
            svi.step(*data)
            assert unmoved(model, before) == []


def test_a_copy_trains_alone(data: Any) -> None:
    SVI(model := Net(), NeuronGuide(model), pyro_adam(model), loss=LocalELBO()).step(*data)
    before = values_of(model)
    for _ in range(2):
        model = copy.deepcopy(model)
        start = values_of(model)
        assert unmoved(model, before) == list(before)
        SVI(model, NeuronGuide(model), pyro_adam(model), loss=LocalELBO()).step(*data)
        assert unmoved(model, start) == []
        before = values_of(model)


def test_state_dict_of_a_second_instance_round_trips(data: Any) -> None:
    for _ in range(2):
        model = Net()
        SVI(model, NeuronGuide(model), pyro_adam(model), loss=LocalELBO()).step(*data)
    other = Net()
    other.load_state_dict(model.state_dict())
    assert unmoved(other, values_of(model)) == list(values_of(model))


@OPTIMISERS
@pytest.mark.parametrize("loss", [Trace_ELBO(), LocalELBO(), PACmELBO(2)])
def test_a_global_latent_is_learned_by_its_own_guide(
    mode: str, make_optim: Make, loss: Any, data: Any
) -> None:
    x, y = data
    for _ in range(2):
        model = Net(with_shift=True)
        others = AutoNormal(without_neurons(model))
        guide = NeuronGuide(model, others=others)
        guide(x, y)  # makes the parameters of the autoguide
        both = nn.ModuleList([model, guide])
        before = values_of(both)
        svi = SVI(model, guide, make_optim(both), loss=loss)
        for _ in range(5):
            svi.step(x, y + 5.0)
        assert unmoved(both, before) == []
        assert others.locs.shift.item() > 0.1


def test_training_lowers_the_loss(mode: str, data: Any) -> None:
    x, _ = data
    model = kl_weight(Net(), 0.01)
    svi = SVI(model, NeuronGuide(model), pyro_adam(nn.Identity()), loss=LocalELBO())
    losses = [svi.step(x, x[:, :1]) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])


def test_evaluates_the_loss_without_training(data: Any) -> None:
    model = Net()
    svi = SVI(model, NeuronGuide(model), pyro_adam(model), loss=LocalELBO())
    before = values_of(model)
    assert math.isfinite(svi.evaluate_loss(*data))
    assert unmoved(model, before) == list(before)


def test_a_torch_optimiser_trains_its_parameters_alone(data: Any) -> None:
    model = Net()
    before = values_of(model)
    optim = torch.optim.SGD(model.readout.parameters(), lr=0.1)
    svi = SVI(model, NeuronGuide(model), optim, loss=LocalELBO())
    svi.step(*data)
    svi.step(*data)
    moved = set(before) - set(unmoved(model, before))
    assert moved == {"readout.weight", "readout.bias"}
    assert all(value.grad is None for value in model.parameters())  # none adds up unseen


def test_a_schedule_of_pyro_works(data: Any) -> None:
    schedule = pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "gamma": 0.0}
    )
    model = Net()
    svi = SVI(model, NeuronGuide(model), schedule, loss=LocalELBO())
    svi.step(*data)
    schedule.step()
    before = values_of(model)
    svi.step(*data)
    assert unmoved(model, before) == list(before)


def test_a_program_that_registers_its_network_trains(data: Any) -> None:
    net = nn.ModuleDict({"neurons": VariationalNeurons(3, 4), "readout": nn.Linear(4, 1)})

    def model(x: Tensor, y: Tensor) -> None:
        pyro.module("net", net)
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("y", dist.Normal(net["readout"](net["neurons"](x)), 1.0), obs=y)

    before = values_of(net)
    SVI(model, NeuronGuide(model), pyro_adam(net), loss=Trace_ELBO()).step(*data)
    assert unmoved(net, before) == []


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("loss", [LocalELBO(), PACmELBO(closed_form=True), Trace_ELBO()])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.filterwarnings("ignore:Encountered")
def test_not_finite_arguments_move_nothing(data: Any, place: int, loss: Any, bad: float) -> None:
    data[place][3, 0] = bad
    model = Regression(3)
    before = values_of(model)
    svi = SVI(model, NeuronGuide(model), pyro_adam(model), loss=loss)
    with pytest.raises(InputError, match=rf"argument {place} of step: .* {bad} at \(3, 0\)"):
        svi.step(*data)
    assert unmoved(model, before) == list(before)


def test_second_instance_made_before_the_first_trains(data: Any) -> None:
    models = [Net(), Net()]
    first, second = (SVI(m, NeuronGuide(m), pyro_adam(m), loss=LocalELBO()) for m in models)
    for _ in range(3):
        first.step(*data)
    kept, before = values_of(models[0]), values_of(models[1])
    for _ in range(3):
        second.step(*data)
    assert unmoved(models[1], before) == []
    assert unmoved(models[0], kept) == list(kept)


def test_second_instance_predicted_before_it_trains(data: Any) -> None:
    first, second = Net(), Net()
    SVI(first, NeuronGuide(first), pyro_adam(first), loss=LocalELBO()).step(*data)
    kept = values_of(first)
    predict(second, NeuronGuide(second), data[0])
    SVI(second, NeuronGuide(second), pyro_adam(second), loss=LocalELBO()).step(*data)
    assert unmoved(first, kept) == list(kept)


def test_autoguides_of_two_models_do_not_share(data: Any) -> None:
    class Other(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Net(with_shift=True)

        def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
            return self.inner(x, y)

    guides = []
    for model in (Net(with_shift=True), Other()):
        guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
        svi = SVI(model, guide, pyro_adam(model), loss=LocalELBO())
        for _ in range(2):
            svi.step(*data)
        guides.append(guide)
    first, second = (guide.others.locs.shift for guide in guides)
    assert first is not second
    assert first != second


def test_a_loaded_store_is_used(data: Any) -> None:
    first = Net()
    svi = SVI(first, NeuronGuide(first), pyro_adam(first), loss=LocalELBO())
    svi.step(*data)
    state = pyro.get_param_store().get_state()
    pyro.clear_param_store()
    loaded = {name: value.detach().clone() for name, value in state["params"].items()}
    pyro.get_param_store().set_state({**state, "params": loaded})
    second = Net()
    SVI(second, NeuronGuide(second), pyro_adam(second), loss=LocalELBO())
    second(data[0])
    assert second.noise.item() == pytest.approx(first.noise.item())


@pytest.mark.parametrize("instances", [1, 2])
def test_options_by_name_reach_every_instance(data: Any, instances: int) -> None:
    seen: list[str] = []

    def options(name: str) -> dict[str, float]:
        seen.append(name)
        return {"lr": 0.01}

    for _ in range(instances):
        model = Net()
        SVI(model, NeuronGuide(model), pyro.optim.Adam(options), loss=LocalELBO()).step(*data)
    assert seen.count("noise") == instances


def test_losses_that_return_several_values(data: Any) -> None:
    model = Net()
    guide = NeuronGuide(model)
    loss = ReweightedWakeSleep(num_particles=2, vectorize_particles=False)
    losses = SVI(model, guide, pyro_adam(model), loss=loss).step(*data)
    assert len(losses) == 2
    assert all(math.isfinite(value) for value in losses)


@pytest.mark.parametrize("optim", [None, 1e-3, torch.optim.Adam])
def test_refuses_another_optimiser(optim: Any) -> None:
    model = Net()
    with pytest.raises(InputError, match=r"optim: expected a pyro\.optim optimiser or a torch"):
        SVI(model, NeuronGuide(model), optim, loss=LocalELBO())


def test_refuses_a_step_of_an_optimiser_of_another_model(data: Any) -> None:
    model, other = Net(), Net()
    svi = SVI(model, NeuronGuide(model), torch_adam(other), loss=LocalELBO())
    with pytest.raises(NoTrainingError, match="none of whose parameters takes part in the loss"):
        svi.step(*data)


def test_refuses_a_step_without_parameters(data: Any) -> None:
    layer, readout = VariationalNeurons(3, 4), nn.Linear(4, 1)

    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            pyro.sample("y", dist.Normal(readout(layer(x)), 1.0), obs=y)

    svi = SVI(model, NeuronGuide(model), pyro_adam(layer), loss=LocalELBO())
    with pytest.raises(NoTrainingError, match="register no parameter with Pyro"):
        svi.step(*data)


def test_refuses_a_step_on_parameters_of_an_earlier_model(data: Any) -> None:
    def program(net: nn.Module) -> Callable[..., None]:
        def model(x: Tensor, y: Tensor) -> None:
            pyro.module("net", net)
            with pyro.plate("data", len(x), dim=-2):
                pyro.sample("y", dist.Normal(net(x), 1.0), obs=y)

        return model

    first, second = (
        program(nn.Sequential(VariationalNeurons(3, 4), nn.Linear(4, 1))) for _ in range(2)
    )
    SVI(first, NeuronGuide(first), pyro_adam(nn.Identity()), loss=LocalELBO()).step(*data)
    svi = SVI(second, NeuronGuide(second), pyro_adam(nn.Identity()), loss=LocalELBO())
    with pytest.raises(NoTrainingError, match="of which none takes part in the loss"):
        svi.step(*data)


@pytest.mark.filterwarnings("ignore:Encountered")
def test_missing_steps_are_no_fault_of_the_data() -> None:
    """Where a loss is not finite, NaN is blamed on data only if the model does not read it."""
    model = StateSpace(2, num_units=3, hidden=4)
    svi = SVI(model, NeuronGuide(model), pyro.optim.Adam({"lr": 1e-2}), loss=LocalELBO())
    x, y = torch.randn(4, 6, 2), torch.randn(4, 6, 1)
    x[0, 2], y[1, 3] = math.nan, math.nan
    assert math.isfinite(svi.step(x, y))
    with torch.no_grad():
        model.readout.linear.bias.fill_(math.nan)
    with pytest.raises(InputError, match="loss: expected a finite value"):
        svi.step(x, y)
