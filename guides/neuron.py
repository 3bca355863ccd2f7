"""The guide made of each neuron's own posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.poutine
import torch
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import nn

from pyro_vdn.nn.plates import NeuronDraws, SiteEffects
from pyro_vdn.nn.sites import Message, is_neuron
from pyro_vdn.poutine.posterior import PosteriorMessenger


class NeuronGuide(nn.Module):
    r"""A guide program that draws each neuron from the posterior offered at its site.

    It runs the model's own code: `q(z, theta | x) = q(theta) prod_i q(z_i | h_i)`, where `theta`
    are the other latent sites. These are drawn by `others` where it is given and otherwise keep
    their prior, as a likelihood site does at prediction. Observations are hidden. It is an ordinary
    program, so stock losses, `Predictive`, importance sampling and effects wrapped around it work;
    effects belong on the model and on the guide alike.

    Args:
        model: The Pyro program with neurons. It is not registered as a submodule: its sites keep
            their names.
        others: A guide for the other latent sites, such as an autoguide of
            `without_neurons(model)`.

    Returns:
        When called with the model's arguments, a dictionary of draws by site name.

    Example:
        >>> from pyro.infer import SVI, Trace_ELBO
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> svi = SVI(model, NeuronGuide(model), pyro.optim.Adam({"lr": 1e-2}), loss=Trace_ELBO())
        >>> loss = svi.step(torch.randn(8, 3), torch.randn(8, 1))
    """

    def __init__(self, model: Callable[..., Any], others: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self._model = (model,)  # a tuple keeps torch from registering it
        self.others = others

    @property
    def model(self) -> Callable[..., Any]:
        """The model whose neurons this guide draws."""
        return self._model[0]

    def forward(self, *args: Any, **kwargs: Any) -> NeuronDraws:
        """Draw all latent sites for the model's arguments."""
        drawn = self.trace_others(*args, **kwargs)
        draws = _Draws()
        hide = BlockMessenger(hide_fn=lambda msg: _hidden(msg, drawn))
        replay = pyro.poutine.replay(trace=drawn)
        with hide, draws, PosteriorMessenger(), replay:
            self.model(*args, **kwargs)
        return NeuronDraws({**_values(drawn), **draws.values}, effects=draws.effects)

    def trace_others(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the guide of the other latent sites and return its trace.

        The trace is empty where there is no such guide.

        Args:
            *args: Positional arguments of the model.
            **kwargs: Keyword arguments of the model.
        """
        if self.others is None:
            return Trace()
        return pyro.poutine.trace(self.others).get_trace(*args, **kwargs)


def without_neurons(model: Callable[..., Any]) -> Callable[..., Any]:
    """Return the model with its neurons hidden, for autoguides of its other latent sites.

    Args:
        model: A Pyro program with neurons.

    Returns:
        A program whose neurons are drawn from their prior and invisible from outside.

    Example:
        >>> from pyro.infer.autoguide import AutoNormal
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> guide = NeuronGuide(model, others=AutoNormal(without_neurons(model)))
    """
    hidden: Callable[..., Any] = pyro.poutine.block(model, hide_fn=is_neuron)
    return hidden


class _Draws(pyro.poutine.messenger.Messenger):
    """Collect the unobserved sites of a run, and the effects at those of neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.values: dict[str, torch.Tensor] = {}
        self.effects: dict[str, SiteEffects] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        self.values[msg["name"]] = msg["value"]
        if is_neuron(msg):
            self.effects[msg["name"]] = SiteEffects.at(msg)


def _hidden(msg: Message, drawn: Trace) -> bool:
    """Hide observations, what the loss enumerates, and what the other guide has drawn already."""
    if msg["type"] != "sample":
        return False
    enumerated = msg["infer"].get("enumerate") == "parallel"
    return bool(msg["is_observed"] or enumerated or msg["name"] in drawn.nodes)


def _values(trace: Trace) -> dict[str, torch.Tensor]:
    return {
        name: site["value"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and not site_is_subsample(site)
    }
