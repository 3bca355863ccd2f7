"""Free bits: a KL that costs nothing up to a number of nats."""

from __future__ import annotations

from functools import partial

import pyro.distributions as dist
from torch import Tensor

from pyro_vdn.control.checks import check_range
from pyro_vdn.control.controller import Controller, Program, Seen
from pyro_vdn.control.layers import Controlled
from pyro_vdn.errors import InputError
from pyro_vdn.nn.unit_measures import unit_kl
from pyro_vdn.poutine import penalize


def free_bits_cost(
    posterior: dist.Distribution, prior: dist.Distribution, *, bits: float
) -> Tensor:
    r"""Return what turns a unit's KL into `max(KL_i, bits)`: `max(0, bits - KL_i)`.

    Args:
        posterior: Posterior of a layer, batch shape `(..., num_units)`.
        prior: Its prior.
        bits: Nats per row that are free.

    Returns:
        Costs, `(num_units,)`, of the mean KL over rows.

    Raises:
        InputError: Where the KL has no closed form.

    Example:
        >>> import torch
        >>> unit = dist.Normal(torch.zeros(2), 1.0)
        >>> free_bits_cost(dist.Normal(torch.tensor([[0.2, 1.0]]), 1.0), unit, bits=0.1)
        tensor([0.0800, 0.0000])
    """
    kl = unit_kl(posterior, prior)
    if kl is None:
        raise InputError(
            "FreeBits",
            expected="a posterior and a prior whose KL has a closed form",
            got=f"{type(posterior).__name__} and {type(prior).__name__}",
            hint="Thermostat, which works with the KL estimated from draws",
        )
    return (bits - kl).clamp(min=0)


class FreeBits(Controller):
    r"""Charges each unit `max(KL_i, bits)` in place of its mean KL over rows.

    Below `bits` a unit gains nothing by telling less. The term is part of the KL: `kl_weight`
    weights it too. It lives in the loss alone; there is nothing to observe.

    Args:
        model: The model, or its layers by path.
        bits: Nats per row and unit that are free, positive.

    Raises:
        InputError: For a number outside its range.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> free = FreeBits(model, bits=0.1).wrap(model)

    Source:
        Kingma et al., *Improving Variational Inference with Inverse Autoregressive Flow*, NeurIPS
        2016.
    """

    def __init__(self, model: Controlled, bits: float = 0.1) -> None:
        super().__init__(model)
        check_range("bits", bits, 0.0, above=True)
        self.bits = bits

    @property
    def due(self) -> bool:
        """Whether the step to come is one to observe: never."""
        return False

    def observe(self, seen: Seen) -> None:
        """Need nothing."""

    def change(self, path: str) -> None:
        """Leave the layer as it is."""

    def wrap(self, model: Program) -> Program:
        """Return the model with the cost at its neurons' sites, ``<path>.free_bits``."""
        cost = partial(free_bits_cost, bits=self.bits)
        wrapped: Program = penalize(
            model, dict.fromkeys(self.layers, cost), name="free_bits", part_of_kl=True
        )
        return wrapped
