"""Pyro's SVI, cured of steps that train nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pyro.infer
import pyro.optim
import pyro.poutine
import torch
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from torch import Tensor

from pyro_vdn.errors import InputError, NoTrainingError, VDNError
from pyro_vdn.infer.own_store import give_own_store, store_of
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_finite, check_not_infinite

Optimizer: TypeAlias = pyro.optim.PyroOptim | torch.optim.Optimizer


class SVI(pyro.infer.SVI):
    r"""A drop-in for `pyro.infer.SVI` that trains what it is given or says why it cannot.

    - It works in Pyro's global parameter mode and in local mode (``module_local_params``), where
      Pyro's own raises.
    - The optimiser may be a `pyro.optim` one or a plain `torch.optim.Optimizer`.
    - In global mode, a second instance of a model class trains: where the parameter store holds
      another module's parameters under its names, it is given a store of its own.
    - A step in which no parameter can move raises, with the remedy.

    Args:
        model: The Pyro program.
        guide: Its guide, such as `NeuronGuide(model)`.
        optim: A `pyro.optim` optimiser, or a torch optimiser over the parameters to train.
        loss: An `ELBO` of Pyro or of this library, or a loss function as Pyro's `SVI` takes it.
        loss_and_grads: Its companion that also computes gradients, as for Pyro's `SVI`.

    Raises:
        InputError: For an optimiser of another kind.
        NoTrainingError: For a step in which no parameter of the optimiser gets a gradient.

    Example:
        >>> from pyro.infer import Trace_ELBO
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> optim = torch.optim.Adam(model.parameters(), lr=1e-2)
        >>> svi = SVI(model, NeuronGuide(model), optim, loss=Trace_ELBO())
        >>> loss = svi.step(torch.randn(8, 3), torch.randn(8, 1))
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: Optimizer,
        loss: ELBO | Callable[..., Any],
        loss_and_grads: Callable[..., Any] | None = None,
    ) -> None:
        if not isinstance(optim, (pyro.optim.PyroOptim, torch.optim.Optimizer)):
            raise InputError(
                "optim",
                expected="a pyro.optim optimiser or a torch.optim.Optimizer",
                got=type(optim).__name__,
                hint='pyro.optim.Adam({"lr": 1e-3}), or '
                "torch.optim.Adam(model.parameters(), lr=1e-3)",
            )
        # Pyro's constructor insists on its own optimisers; a torch one takes over in `_move`.
        super().__init__(model, guide, pyro.optim.Adam({}), loss, loss_and_grads)
        self.optim = optim
        self._started = False

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a gradient step on the loss.

        Args:
            *args: Positional arguments of model and guide.
            **kwargs: Keyword arguments of model and guide.

        Returns:
            The loss before the step; several of them for a loss that returns several.

        Raises:
            NoTrainingError: Where no parameter of the optimiser has a gradient.
            InputError: Where the loss is not finite; no parameter has moved then.
        """
        if not self._started:  # as late as can be: another model may have run since
            give_own_store(self.model, self.guide)
            self._started = True
        if isinstance(self.optim, torch.optim.Optimizer):
            self.optim.zero_grad()
        try:
            with pyro.poutine.trace(param_only=True) as capture:
                loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        except (ValueError, RuntimeError) as error:  # a distribution or a solver was given NaN
            if not isinstance(error, VDNError):
                _check_arguments(self.model, args, kwargs)
            raise
        seen = {_unconstrained(site["value"]) for site in capture.trace.nodes.values()}
        losses = loss if isinstance(loss, tuple) else (loss,)
        if not all(math.isfinite(torch_item(value)) for value in losses):
            _clear(seen)
            _check_arguments(self.model, args, kwargs)
            raise InputError(
                "loss",
                expected="a finite value",
                got=f"{loss} for finite arguments",
                hint="a smaller learning rate, clipped gradients, or a floor under every scale",
            )
        self._move(seen)
        if isinstance(loss, tuple):
            return type(loss)(map(torch_item, loss))
        return float(torch_item(loss))

    def _move(self, seen: set[Tensor]) -> None:
        by_torch = isinstance(self.optim, torch.optim.Optimizer)
        trained = _held_by(self.optim) if by_torch else seen
        if not any(param.grad is not None for param in trained):
            raise NoTrainingError(self._why(seen, by_torch))
        if isinstance(self.optim, torch.optim.Optimizer):
            self.optim.step()
        else:
            with store_of(self.model):  # where the optimiser looks up the names of parameters
                self.optim([param for param in seen if param.grad is not None])
        _clear(seen | trained)

    def _why(self, seen: set[Tensor], by_torch: bool) -> str:
        expected = "SVI.step: expected a parameter with a gradient"
        if by_torch:
            return (
                f"{expected}, got an optimiser none of whose parameters takes part in the loss. "
                "Try: make the optimiser over the parameters of this model and guide."
            )
        if not seen:
            return (
                f"{expected}, got a model and guide that register no parameter with Pyro. Try: "
                'make the model a PyroModule, say `pyro.module("net", net)` inside it, or pass a '
                "torch optimiser over its parameters."
            )
        return (
            f"{expected}, got {len(seen)} registered parameters of which none takes part in the "
            "loss: the parameter store holds those of an earlier model under the same names, or "
            "they are frozen. Try: `pyro.clear_param_store()` before making the model, or "
            "`pyro.settings.set(module_local_params=True)`."
        )


def _clear(params: set[Tensor]) -> None:
    for param in params:
        param.grad = None


def _check_arguments(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise `InputError` for the first argument of a step that is not finite."""
    check = check_not_infinite if reads_missing(model) else check_finite
    named = [(f"argument {place} of step", value) for place, value in enumerate(args)]
    for name, value in [*named, *kwargs.items()]:
        if isinstance(value, Tensor):
            check(name, value)


def _held_by(optim: torch.optim.Optimizer) -> set[Tensor]:
    return {param for group in optim.param_groups for param in group["params"]}


def _unconstrained(value: Tensor) -> Tensor:
    """Return the leaf behind a parameter's value; in local mode plain parameters are their own."""
    unconstrained = getattr(value, "unconstrained", None)
    leaf: Tensor = value if unconstrained is None else unconstrained()
    return leaf
