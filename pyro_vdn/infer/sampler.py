"""Fresh predictive draws of chosen rows, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vdn.infer.closed_form import Inputs
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.predict import draw_outcomes
from pyro_vdn.infer.single_pass import Program


def sampler(
    model: Program,
    guide: Program,
    x: Inputs,
    *,
    site: str = "y",
    batch_size: int = 1024,
    seed: int = 0,
) -> Callable[[NDArray[np.intp], int], Tensor]:
    """Return a function that draws from the posterior predictive distribution of chosen rows.

    It is what :func:`pyro_vdn.decision.adaptive_draws` asks for. Every call has noise of its own;
    parts in training mode are put into evaluation mode for its length.

    Args:
        model: As for :func:`predict`.
        guide: Its guide.
        x: Inputs, `(rows, ...)`, or several of them with the same number of rows.
        site: Name of the outcome's site.
        batch_size: Rows per batch.
        seed: Seed of the first call, from which those of the others follow; the caller's random
            state is untouched.

    Returns:
        A function of indices of rows and a number of draws, which returns
        `(draws, rows, outputs)` and raises what :func:`predict` does.

    Example:
        >>> from pyro_vdn.decision import Probability, adaptive_draws
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model, x = Regression(3), torch.zeros(5, 3)
        >>> draw = sampler(model, NeuronGuide(model), x)
        >>> draw(np.array([0, 4]), 7).shape
        torch.Size([7, 2, 1])
        >>> adaptive_draws(draw, len(x), quantity=Probability(9.0), tolerance=0.2).draws
        array([32, 32, 32, 32, 32])
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    seeds = np.random.SeedSequence(seed)

    def draw(rows: NDArray[np.intp], count: int) -> Tensor:
        chosen = torch.as_tensor(rows, device=inputs[0].device)
        (child,) = seeds.spawn(1)
        with own_noise(int(child.generate_state(1)[0])), evaluating(model, guide):
            return draw_outcomes(
                model,
                guide,
                [value[chosen] for value in inputs],
                count,
                batch_size=batch_size,
                site=site,
            )

    return draw
