"""Learned priors that follow what the neurons do, where no KL trains them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor

from pyro_vdn.control import match_priors
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.poutine import record

_SEED = 30_000_001


class MatchPriors(lightning.Callback):
    """Gives learned priors the moments of what the neurons do, before every evaluation of `fit`.

    A prior that no KL trains stays as it started, and the KL to it says nothing. With matched ones
    every evaluation, and every checkpoint that is written behind it, has the priors that belong to
    its weights and to the noise then in force; see `pyro_vdn.control.match_priors`. Training is not
    changed where the loss pays no KL, and its random state is left alone.

    Args:
        inputs: Inputs that the model is trained on, `(rows, ...)`; random rows of them are looked
            at, the same every time.
        batches: Number of batches of these.
        batch_size: Rows of each.

    Raises:
        InputError: For numbers that are not positive; in training, for a model without neurons.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.nn import LearnedNormal
        >>> from pyro_vdn.poutine import kl_weight
        >>> from pyro_vdn.train import FitOptions, fit
        >>> model, (x, y) = Regression(3), (torch.randn(64, 3), torch.randn(64, 1))
        >>> model.neurons.prior = LearnedNormal()
        >>> model.neurons.prior.bind(model.neurons.shape)
        >>> options = FitOptions(max_steps=4, evaluate_every=4, accelerator="cpu")
        >>> data = (x[:48], y[:48]), (x[48:], y[48:])
        >>> matching = MatchPriors(x[:48], batch_size=16)
        >>> _ = fit(kl_weight(model, 0.0), *data, options=options, callbacks=[matching])
        >>> bool((model.neurons.prior.loc != 0).all())
        True
    """

    def __init__(self, inputs: Tensor, *, batches: int = 32, batch_size: int = 12) -> None:
        check_positive(batches=batches, batch_size=batch_size)
        places = torch.Generator().manual_seed(_SEED)
        rows = torch.randint(len(inputs), (batches * batch_size,), generator=places)
        self.inputs = inputs[rows].split(batch_size)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Look at the rows, with the effects as they are now, and set the priors."""
        model, guide = pl_module.programs
        with own_noise(_SEED), evaluating(model, guide), record() as seen:
            for x in self.inputs:
                guide(x.to(pl_module.device))
        match_priors(model, seen)
