"""One run of a model that yields prior, posterior and likelihood of every site."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

import pyro.poutine
import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pyro_vdn.errors import InputError, OneSidedEffectError
from pyro_vdn.infer.site import Site, check_plates
from pyro_vdn.nn.sites import PRIOR, Message
from pyro_vdn.poutine.posterior import PosteriorMessenger

Program = Callable[..., Any]


class OfferedGuide(Protocol):
    """A guide made of the posteriors that its model offers, such as `NeuronGuide`.

    Another guide draws what else is latent.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> guide: OfferedGuide = NeuronGuide(Regression(3))
        >>> len(guide.trace_others(torch.zeros(5, 3)))
        0
    """

    @property
    def model(self) -> Program:
        """The model whose offers it takes."""
        ...

    def trace_others(self, *args: Any, **kwargs: Any) -> Trace:
        """Run the guide of the other latent sites and return its trace.

        Args:
            *args: Positional arguments of the model.
            **kwargs: Keyword arguments of the model.
        """
        ...


@dataclass
class Pass:
    """The sites of one run, sorted by the part they play in a bound.

    Args:
        neurons: Latent sites of neuron layers, in the order they ran.
        observed: Likelihood sites.
        local: Local reconstruction sites.
        penalties: Factor sites of penalties.
        others: Other latent sites, drawn by the second guide or kept at their prior.
        drawn: Trace of the second guide.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> args = (torch.zeros(5, 3), torch.zeros(5, 1))
        >>> run = run_single_pass(model, NeuronGuide(model), args, {})
        >>> run.neurons[0].name, run.observed[0].name, run.others
        ('neurons.z', 'y', [])
    """

    neurons: list[Site] = field(default_factory=list)
    observed: list[Site] = field(default_factory=list)
    local: list[Site] = field(default_factory=list)
    penalties: list[Site] = field(default_factory=list)
    others: list[Site] = field(default_factory=list)
    drawn: Trace = field(default_factory=Trace)

    def log_ratio_of_others(self) -> Tensor | float:
        """Return `log p - log q` summed over the latent sites that are not neurons."""
        guided = [site for site in self.others if site.name in self.drawn.nodes]
        if not guided and not self.drawn.nodes:
            return 0.0
        self.drawn.compute_log_prob()
        log_p: Tensor | float = sum((site.log_prob().sum() for site in guided), 0.0)
        drawn = self.drawn.nodes.values()
        log_q: Tensor | float = sum(site["log_prob_sum"] for site in drawn if _is_latent(site))
        return log_p - log_q


class _SinglePassMessenger(PosteriorMessenger):
    """Draw neurons from their posterior and sort all sites into a `Pass`."""

    def __init__(self, drawn: Trace) -> None:
        super().__init__()
        self.result = Pass(drawn=drawn)

    def _pyro_post_sample(self, msg: Message) -> None:
        super()._pyro_post_sample(msg)
        if site_is_subsample(msg):
            return
        prior = msg["infer"].get(PRIOR)
        site = Site(
            name=msg["name"],
            value=msg["value"],
            fn=msg["fn"],
            prior=prior,
            scale=msg["scale"],
            mask=msg["mask"],
            infer=msg["infer"],
            plates=msg["cond_indep_stack"],
        )
        if is_validation_enabled():
            check_plates(site)
        if prior is not None:
            self.result.neurons.append(site)
        elif site.is_penalty:
            self.result.penalties.append(site)
        elif msg["is_observed"]:
            (self.result.local if site.is_local else self.result.observed).append(site)
        else:
            self._add_other(site)

    def _add_other(self, site: Site) -> None:
        reparameterised = site.fn.has_rsample or site.name in self.result.drawn.nodes
        if not reparameterised and torch.is_grad_enabled():
            raise InputError(
                f"site '{site.name}'",
                expected="an observation or a reparameterised distribution",
                got=f"a latent {type(site.fn).__name__} without a pathwise gradient",
                hint="observe it, or train with pyro.infer.Trace_ELBO or TraceEnum_ELBO",
            )
        self.result.others.append(site)


def run_single_pass(model: Program, guide: Program, args: Any, kwargs: Any) -> Pass:
    """Run the model once, its neurons drawn from their posteriors, and return its sites.

    Args:
        model: The program that is run, with whatever effects are wrapped around it.
        guide: A `NeuronGuide`, of which only the guide of the other latent sites is run, or any
            other guide program: then sites that it draws take its draws.
        args: Positional arguments of both.
        kwargs: Keyword arguments of both.

    Returns:
        The sorted sites.

    Raises:
        OneSidedEffectError: Where an effect is wrapped around the guide but not around the model.
    """
    drawn = _trace_others(model, guide, args, kwargs)
    messenger = _SinglePassMessenger(drawn)
    replay = pyro.poutine.replay(trace=drawn) if drawn.nodes else nullcontext()
    with messenger, replay:
        model(*args, **kwargs)
    return messenger.result


def _trace_others(model: Program, guide: Program, args: Any, kwargs: Any) -> Trace:
    bare = pyro.poutine.unwrap(guide)
    if not _takes_offers(bare):
        trace = pyro.poutine.trace(guide).get_trace(*args, **kwargs)
    else:
        if _is_wrapped(guide) or (bare.model is not model and _is_wrapped(bare.model)):
            raise OneSidedEffectError(
                "guide: expected effects on the model, which a single-pass loss runs alone, got an "
                "effect wrapped around the guide or around the guide's model only. Try: `model = "
                "effect(model)` and hand that model to both, or use the effect as a context around "
                "the step."
            )
        trace = bare.trace_others(*args, **kwargs)
    for name in [name for name, site in trace.nodes.items() if not _is_latent(site)]:
        trace.remove_node(name)
    return _reparameterised(trace)


def _takes_offers(guide: Any) -> TypeGuard[OfferedGuide]:
    return hasattr(guide, "trace_others")


def _is_wrapped(program: Program) -> bool:
    return pyro.poutine.unwrap(program) is not program


def _is_latent(site: Message) -> bool:
    return bool(site["type"] == "sample" and not site["is_observed"])


def _reparameterised(trace: Trace) -> Trace:
    for name, site in trace.nodes.items():
        if not (site_is_subsample(site) or site["fn"].has_rsample):
            raise InputError(
                f"guide site '{name}'",
                expected="a reparameterised distribution",
                got=type(site["fn"]).__name__,
                hint="train with pyro.infer.Trace_ELBO or TraceEnum_ELBO",
            )
    return trace
