"""The names of sites, plates and offers: every such string of the library lives here.

A neuron layer at attribute path ``a.b`` samples the site ``a.b.z`` in the plate ``a.b.units`` and,
with local reconstruction, observes ``a.b.local``. One with memory stands in the plate ``a.b.time``
of its steps or, run as a `pyro.markov` loop, samples ``a.b.z_0``, ``a.b.z_1``, ...

Sites carry *offers* in their ``infer`` dictionary; a program that does not know an offer ignores
it, so the model stays plain Pyro.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from pyro.infer.elbo import ELBOModule
from pyro.nn import PyroModule
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

#: A message on its way through Pyro's effect stack (`pyro.poutine.runtime.Message`).
Message: TypeAlias = dict[str, Any]

#: Offer at a neuron's site: a function without arguments that returns its amortized posterior.
POSTERIOR = "vdn_posterior"
#: Offer at a neuron's site: a function from its posterior to the distribution of the layer's
#: pooled output.
OUTPUT = "vdn_output"
#: At a neuron's site: which of its steps have input, a `Present`; absent where all have.
PRESENT = "vdn_present"
#: Offer at a likelihood site: a function from the output distribution of the last neurons to an
#: `Integrated`.
MARGINAL = "vdn_marginal"
#: Mark of a local reconstruction site.
LOCAL = "vdn_local"
#: Mark of the factor site of a penalty.
PENALTY = "vdn_penalty"
#: Mark of a penalty that is part of the KL, so that a KL weight reaches it.
KL_TERM = "vdn_kl_term"
#: Where an effect that draws from the posterior keeps the prior it displaced.
PRIOR = "vdn_prior"
#: On a message itself, which no replay carries along: its distribution is the posterior.
DRAWN = "vdn_drawn"

#: The plate of vectorised particles, the one that Pyro's losses use.
PARTICLES = "num_particles_vectorized"
#: The plate of vectorised draws, the one that `pyro.infer.Predictive` uses.
DRAWS = "_num_predictive_samples"
#: The plates that repeat a whole program.
PARTICLE_PLATES = frozenset({PARTICLES, DRAWS})

_WRAPPERS = (ELBOModule, DataParallel, DistributedDataParallel)
_PATHS: WeakKeyDictionary[nn.Module, WeakKeyDictionary[nn.Module, str]] = WeakKeyDictionary()


def latent_site(path: str, step: int | None = None) -> str:
    """Return the name of the sample site of the layer at `path`, or of one step in time."""
    return _join(path, "z" if step is None else f"z_{step}")


def step_of(site: str) -> int | None:
    """Return the step in time of the sample site of one step, or None for any other site.

    Args:
        site: Name of the site.

    Example:
        >>> step_of(latent_site("neurons", 12)), step_of(latent_site("neurons"))
        (12, None)
    """
    last, _, step = site.rpartition(".")[2].rpartition("_")
    return int(step) if last == "z" and step.isdecimal() else None


def local_site(path: str) -> str:
    """Return the name of the local reconstruction site of the layer at `path`."""
    return _join(path, "local")


def penalty_site(path: str, name: str) -> str:
    """Return the name of the penalty `name` of the layer at `path`."""
    return _join(path, name)


def units_plate(path: str) -> str:
    """Return the name of the neuron plate of the layer at `path`."""
    return _join(path, "units")


def time_plate(path: str) -> str:
    """Return the name of the plate of time steps of the layer at `path`."""
    return _join(path, "time")


def step_plate(path: str) -> str:
    """Return the name of the plate of size 1 that keeps the place of time at one step."""
    return _join(path, "step")


def hyper_site(path: str, name: str) -> str:
    """Return the name of the global site of a hyperparameter of the prior at `path`."""
    return _join(path, name)


def hyper_plate(path: str, name: str) -> str:
    """Return the name of the plate of units of a hyperparameter."""
    return _join(path, name, "units")


def layer_of(site: str) -> str:
    """Return the path of the layer that owns a site, ``""`` for a bare layer."""
    return site.rpartition(".")[0]


def is_neuron(msg: Message) -> bool:
    """Say whether a message comes from the latent site of a neuron layer."""
    return bool(msg["type"] == "sample" and POSTERIOR in msg["infer"])


def attribute_path(layer: nn.Module) -> str:
    """Return the attribute path of `layer` below the outermost module that is running it.

    Pyro names a parameter by its path below the outermost `PyroModule`, but hands names down
    through instances of `PyroModule` only: inside `nn.Sequential`, `nn.ModuleList` or a plain
    module it loses track, and two layers would collide. The modules being called are on the Python
    stack, so the path is read off there: below the outermost `PyroModule` that contains the layer
    or, where there is none, below the outermost module that is not merely a wrapper.

    Args:
        layer: The layer whose ``forward`` is running.

    Returns:
        A dotted path such as ``"encoder.1"``, or ``""`` where the layer runs on its own.
    """
    holders = [
        (module, path) for module in _running() if (path := _path(module, layer)) is not None
    ]
    for module, path in reversed(holders):
        if isinstance(module, PyroModule):
            return _join(module._pyro_name, path)
    return holders[-1][1] if holders else ""


def _running() -> Iterator[nn.Module]:
    """Yield the modules whose methods are on the Python stack, innermost first."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_varnames[:1] == ("self",):
            module = frame.f_locals.get("self")
            if isinstance(module, nn.Module) and not isinstance(module, _WRAPPERS):
                yield module
        frame = frame.f_back  # type: ignore[assignment]


def _path(root: nn.Module, layer: nn.Module) -> str | None:
    """Return the path of `layer` below `root`, remembered, or None where it is not in `root`."""
    known = _PATHS.setdefault(layer, WeakKeyDictionary())
    path = known.get(root)
    if path is None or _submodule(root, path) is not layer:
        path = next((name for name, module in root.named_modules() if module is layer), None)
        if path is not None:
            known[root] = path
    return path


def _submodule(root: nn.Module, path: str) -> nn.Module | None:
    """Return a submodule without reading attributes, which in a `PyroModule` are effectful."""
    module: nn.Module | None = root
    for name in path.split(".") if path else ():
        module = None if module is None else module._modules.get(name)
    return module


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
