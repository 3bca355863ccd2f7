"""A parameter store of its own for the second instance of a model class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
from pyro.nn import PyroModule
from pyro.nn.module import _Context
from pyro.params.param_store import ParamStoreDict, param_with_module_name
from torch import Tensor, nn


class _OwnStore(_Context):
    """A context of `PyroModule` calls that swaps in a private parameter store while it is active.

    This is what Pyro's ``module_local_params`` setting does for all modules, here for one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.param_state: dict[str, Any] = {"params": {}, "constraints": {}}
        self._scope: Any = None

    def __enter__(self) -> None:
        if not self.active and not pyro.settings.get("module_local_params"):
            self._scope = pyro.get_param_store().scope(state=self.param_state)
            self.param_state = self._scope.__enter__()
        super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        if not self.active and self._scope is not None:
            self._scope.__exit__(*exception)
            self._scope = None


def store_of(model: Callable[..., Any]) -> AbstractContextManager[Any]:
    """Return a context in which the parameter store is the one that a model uses.

    Args:
        model: A Pyro program, bare or wrapped in effects.
    """
    bare = pyro.poutine.unwrap(model)
    return bare._pyro_context if isinstance(bare, PyroModule) else nullcontext()


def give_own_store(model: Callable[..., Any], guide: Callable[..., Any]) -> None:
    """Give model and guide a parameter store of their own where their names are taken.

    A name is taken where another model holds it in the global store. In Pyro's global parameter
    mode a name means one tensor per process: a second instance of a model class would silently
    share or lose its parameters. In local mode, or where no name is taken, nothing is done.

    Args:
        model: A Pyro program; only a `PyroModule`, bare or wrapped in effects, owns parameters.
        guide: Its guide.
    """
    if pyro.settings.get("module_local_params"):
        return
    roots = [root for root in _roots(model, guide) if isinstance(root, PyroModule)]
    if not any(_names_taken(root) for root in roots):
        return
    for root in roots:
        old, own = root._pyro_context, _OwnStore()
        own.used = old.used
        for module in root.modules():
            if isinstance(module, PyroModule) and module._pyro_context is old:
                module._pyro_context = own


def _roots(model: Callable[..., Any], guide: Callable[..., Any]) -> Iterator[Any]:
    for program in (model, guide):
        bare = pyro.poutine.unwrap(program)
        yield bare
        yield getattr(bare, "others", None)


def _names_taken(root: PyroModule) -> bool:
    """Say whether the global store holds other tensors under the names of a module's parameters."""
    store = pyro.get_param_store()
    if isinstance(root._pyro_context, _OwnStore):
        return False
    own = dict(_store_names(root, root._pyro_name))
    if not own:  # an autoguide that has not made its parameters yet
        prefix = f"{root._pyro_name}."
        return bool(root._pyro_name) and any(name.startswith(prefix) for name in store)
    return any(name in store and _held_elsewhere(store, name, own[name]) for name in own)


def _held_elsewhere(store: ParamStoreDict, name: str, value: Tensor) -> bool:
    """Say whether a module holds another parameter by that name; a loaded store holds tensors."""
    held = store._params[name]
    return held is not value and isinstance(held, nn.Parameter)


def _store_names(module: PyroModule, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the names under which Pyro stores a module's parameters, with their values."""
    for name, value in module._parameters.items():
        if value is not None:
            yield _dotted(prefix, name.removesuffix("_unconstrained")), value
    for name, child in module._modules.items():
        path = _dotted(prefix, name)
        if isinstance(child, PyroModule):
            yield from _store_names(child, path)
        elif isinstance(child, nn.Module):
            for inner, value in child.named_parameters():
                yield param_with_module_name(path, inner), value


def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
