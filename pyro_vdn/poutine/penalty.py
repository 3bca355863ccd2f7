"""Effect: add a penalty per unit at the neurons' sites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.sites import (
    KL_TERM,
    PENALTY,
    POSTERIOR,
    PRIOR,
    Message,
    is_neuron,
    latent_site,
    layer_of,
    penalty_site,
    step_of,
)
from pyro_vdn.poutine.messenger import NeuronMessenger, wrapped

#: From posterior and prior of a layer to a cost per unit, `(num_units,)`, in nats per row.
Cost: TypeAlias = Callable[[dist.Distribution, dist.Distribution], Tensor]


class PenaltyMessenger(NeuronMessenger):
    """Subtract a cost per unit from the log density, at a factor site beside the neurons'.

    See `penalize`.

    Args:
        costs: By layer path, the cost of its units.
        name: Last part of the sites' names.
        part_of_kl: Whether `kl_weight` reaches the cost as it reaches the KL.

    Example:
        >>> PenaltyMessenger({}, name="band").name
        'band'
    """

    def __init__(
        self, costs: Mapping[str, Cost], *, name: str = "penalty", part_of_kl: bool = False
    ) -> None:
        super().__init__()
        self.costs = costs
        self.name = name
        self.part_of_kl = part_of_kl

    def named_layers(self) -> Iterable[str]:
        """Return the layers that pay a cost."""
        return self.costs

    def on_neuron(self, msg: Message) -> None:
        """Leave the site itself as it is."""

    def _pyro_post_sample(self, msg: Message) -> None:
        path = layer_of(msg["name"])
        if path in self.costs and is_neuron(msg) and step_of(msg["name"]) is not None:
            raise InputError(
                f"penalty '{self.name}' of layer '{path}'",
                expected="a layer that samples all of its steps at one site",
                got=f"the step '{msg['name']}' of a loop over time",
                hint='VariationalNeurons(..., steps="parallel"), the same density',
            )
        if path not in self.costs or msg["name"] != latent_site(path) or msg["mask"] is False:
            return
        cost = self._cost(path, msg)
        infer = {PENALTY: True, **({KL_TERM: True} if self.part_of_kl else {})}
        # What `pyro.factor` does, and a mark by which a loss knows a penalty from an observation.
        unit = dist.Unit((-cost).expand(msg["fn"].batch_shape), validate_args=False)
        pyro.sample(penalty_site(path, self.name), unit, obs=unit.sample(), infer=infer)

    def _cost(self, path: str, msg: Message) -> Tensor:
        """Return the cost per unit, nothing where the neurons are observed."""
        if msg["is_observed"]:
            observed: Tensor = msg["value"]
            return observed.new_zeros(msg["fn"].batch_shape[-1:])
        if POSTERIOR not in msg["infer"]:
            raise InputError(
                f"penalty '{self.name}' of layer '{path}'",
                expected="neurons drawn from the posterior that their layer offers",
                got="draws of another guide",
                hint="NeuronGuide(model), which takes the offers",
            )
        cost = self.costs[path](msg["infer"][POSTERIOR](), msg["infer"].get(PRIOR, msg["fn"]))
        _check_cost(f"cost of layer '{path}'", cost, msg["fn"].batch_shape[-1])
        return cost


def _check_cost(what: str, cost: Any, num_units: int) -> None:
    if isinstance(cost, Tensor) and cost.shape in (torch.Size([]), torch.Size([num_units])):
        return
    got = f"shape {tuple(cost.shape)}" if isinstance(cost, Tensor) else type(cost).__name__
    raise InputError(
        what,
        expected=f"a tensor of shape ({num_units},)",
        got=got,
        hint="a mean over rows, as in `posterior.mean.square().mean(0)`",
    )


def penalize(
    model: Callable[..., Any] | None = None,
    costs: Mapping[str, Cost] | None = None,
    *,
    name: str = "penalty",
    part_of_kl: bool = False,
) -> Any:
    r"""Subtract `sum_rows sum_i cost_i` from a model's log density, at the neurons' sites.

    Each named layer gets a site ``<attribute path>.<name>``, a `pyro.factor` in the neuron plate.
    It stands in the plates of the neurons, so that a penalty per row keeps its size beside a
    likelihood per row, and a subsample is scaled up like any other term. The single-pass losses
    report it apart (`Terms.penalty`), and it is no part of the true ELBO. Neurons that are observed
    pay nothing, and under a mask of False, as in `Predictive`, there is no such site.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.
        costs: By layer path, a function from posterior and prior to the cost of each unit,
            `(num_units,)`, in nats per row; it may look at all rows of the batch.
        name: Last part of the sites' names; two penalties of one layer need two names.
        part_of_kl: Whether the cost belongs to the KL, so that `kl_weight` multiplies it too.

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: When no costs are given, or for a name that is no identifier or is taken; and,
            when it runs, for a cost of another shape, a layer that runs as a `pyro.markov` loop, or
            neurons drawn by a guide that does not take their layer's offer.

    Example:
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> def energy(posterior, prior):
        ...     return posterior.mean.square().mean(0)
        >>> penalised = penalize(VariationalNeurons(3, 4), {"": energy}, name="energy")
        >>> trace = pyro.poutine.trace(penalised).get_trace(torch.ones(5, 3))
        >>> trace.nodes["energy"]["fn"].log_factor.shape
        torch.Size([5, 4])
    """
    if not costs:
        raise InputError(
            "costs",
            expected="a cost function by layer path",
            got=repr(costs),
            hint='costs={"neurons": lambda posterior, prior: posterior.mean.square().mean(0)}',
        )
    if not name.isidentifier() or name in ("z", "local", "units"):
        raise InputError(
            "name",
            expected="an identifier, other than z, local and units, which a layer uses itself",
            got=repr(name),
            hint='name="penalty"',
        )
    return wrapped(PenaltyMessenger(costs, name=name, part_of_kl=part_of_kl), model)
