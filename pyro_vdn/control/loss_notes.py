"""Notes on the terms of a loss, taken where its sites run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.distributed as distributed
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.sites import (
    LOCAL,
    PENALTY,
    PRESENT,
    Message,
    is_neuron,
    layer_of,
    penalty_site,
)

if TYPE_CHECKING:
    from pyro_vdn.control.controller import Controller


class LossNotes:
    """Log-likelihood and the memory's term of the runs that were noted.

    Args:
        penalty: Last part of the names of the penalties that are the memory's term; None where that
            is the KL.

    Example:
        >>> LossNotes().rows
        {}
    """

    def __init__(self, penalty: str | None = None) -> None:
        self.penalty = penalty
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.log_likelihood: Tensor | float = 0.0
        self.paid: Tensor | float = 0.0
        #: By layer, the rows that no mask leaves out, and the factor on each unit's KL.
        self.rows: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def add_likelihood(self, msg: Message) -> None:
        """Take in an observed site.

        Args:
            msg: The message of the site.
        """
        self.log_likelihood = self.log_likelihood + _log_density(msg)

    def add_penalty(self, msg: Message) -> None:
        """Take in the factor of a penalty.

        Args:
            msg: The message of its site.
        """
        self.paid = self.paid - _log_density(msg)

    def add_neurons(self, msg: Message) -> None:
        """Take in the site of a layer, or of one of its steps.

        Args:
            msg: The message of the site.
        """
        path = layer_of(msg["name"])
        shape = msg["fn"].batch_shape
        self.rows[path] = self.rows.get(path, 0.0) + _share_unmasked(msg) * shape[:-1].numel()
        scale = torch.as_tensor(msg["scale"]).detach()
        scale = scale.reshape(-1, scale.shape[-1]).mean(0) if scale.dim() else scale
        self.weights[path] = scale.expand(shape[-1])

    def ratio(self, kl: Mapping[str, Tensor]) -> Tensor:
        """Return the memory's term over the absolute log-likelihood, a scalar.

        Args:
            kl: By layer path, each unit's mean KL, `(num_units,)`.

        Raises:
            InputError: Where nothing was noted.
        """
        if not self.rows:
            raise InputError(
                "PersistenceShare",
                expected="a step of the model that it has wrapped",
                got="none whose log-likelihood could be noted",
                hint="controlled = share.wrap(model), each step inside `with watch(share):`",
            )
        like = next(iter(kl.values()))
        paid = torch.as_tensor(self.paid).to(like)
        if self.penalty is None:
            terms = [
                self.rows[path] * (self.weights[path].to(one) * one).sum()
                for path, one in kl.items()
            ]
            paid = torch.stack(terms).sum()
        both = torch.stack([paid, torch.as_tensor(self.log_likelihood).to(like)])
        both = _over_processes(both)
        return both[0] / both[1].abs()


class NotingMessenger(Messenger):
    """Take notes on the steps that a controller is to observe.

    What runs without gradients is no step of training and is not noted. A two-pass loss runs the
    model twice, and all terms are noted in both runs alike, so that their ratio is that of one.

    Args:
        notes: Where they are taken.
        controller: The controller that says which steps are due, and of which layers.

    Example:
        >>> from pyro_vdn.control import KLSchedule
        >>> from pyro_vdn.models import Regression
        >>> notes, model = LossNotes(), Regression(3)
        >>> with NotingMessenger(notes, KLSchedule(model, lambda step: 1.0)):
        ...     _ = model(torch.zeros(2, 3))
        >>> notes.rows  # never due
        {}
    """

    def __init__(self, notes: LossNotes, controller: Controller) -> None:
        super().__init__()
        self.notes = notes
        self.controller = controller

    def _pyro_post_sample(self, msg: Message) -> None:
        if not self.controller.due or not torch.is_grad_enabled() or site_is_subsample(msg):
            return
        infer, layers = msg["infer"], self.controller.layers
        if is_neuron(msg):
            path = layer_of(msg["name"])
            if path in layers and not msg["is_observed"]:
                self.notes.add_neurons(msg)
        elif PENALTY in infer:
            path, name = layer_of(msg["name"]), self.notes.penalty
            if name is not None and path in layers and msg["name"] == penalty_site(path, name):
                self.notes.add_penalty(msg)
        elif msg["is_observed"] and not (LOCAL in infer or infer.get("_deterministic")):
            self.notes.add_likelihood(msg)


def _log_density(msg: Message) -> Tensor:
    """Return the log density of a site as the loss has it, scaled and masked, summed."""
    with torch.no_grad():
        log_prob = msg["fn"].log_prob(msg["value"])
        total: Tensor = scale_and_mask(log_prob, msg["scale"], msg["mask"]).sum()
        return total


def _share_unmasked(msg: Message) -> float:
    """Return the share of rows and units that neither a mask nor missing input leaves out."""
    share = 1.0
    present = msg["infer"].get(PRESENT)
    if present is not None:
        share = float(present.here.double().mean())
    mask = msg["mask"]
    return share if mask is None else share * float(torch.as_tensor(mask).double().mean())


def _over_processes(values: Tensor) -> Tensor:
    """Return sums over all processes, so that every one of them acts alike."""
    together = distributed.is_available() and distributed.is_initialized()
    if together and distributed.get_world_size() > 1:
        values = values.contiguous()
        distributed.all_reduce(values)
    return values
