"""Parameters that training leaves as they start."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import pyro.poutine
from torch import nn

from pyro_vdn.errors import InputError


class Freeze(lightning.Callback):
    """Keeps parameters of the model as they are inside `fit`, as if no gradient reached them.

    They neither move nor decay, and do not count in the norm that is clipped. They stay parameters
    like others, which Pyro registers: it warns of those that require no gradient.

    Args:
        part: A part of their names in the bare model.

    Raises:
        InputError: In training, for a part that is in no name.

    Example:
        >>> import torch
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.train import FitOptions, fit
        >>> model, (x, y) = Regression(3), (torch.randn(64, 3), torch.randn(64, 1))
        >>> before = model.neurons.posterior.raw_scale.value.detach().clone()
        >>> options = FitOptions(max_steps=4, evaluate_every=4, accelerator="cpu")
        >>> data = (x[:48], y[:48]), (x[48:], y[48:])
        >>> _ = fit(model, *data, options=options, callbacks=[Freeze("posterior.raw_scale")])
        >>> torch.equal(model.neurons.posterior.raw_scale.value, before)
        True
    """

    def __init__(self, part: str) -> None:
        self.part = part
        self.held: list[nn.Parameter] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the parameters."""
        model = pyro.poutine.unwrap(pl_module.programs[0])
        named = dict(model.named_parameters()) if isinstance(model, nn.Module) else {}
        self.held = [value for name, value in named.items() if self.part in name]
        if not self.held:
            raise InputError(
                "part",
                expected="a part of the name of a parameter",
                got=repr(self.part),
                hint="[name for name, _ in model.named_parameters()]",
            )

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Drop the gradients, before they are clipped: an optimiser skips what has none."""
        for value in self.held:
            value.grad = None
