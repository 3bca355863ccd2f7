"""What models of sequences share: neurons over time, whether their prior has memory or not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pyro
import torch
from torch import Tensor, nn

from pyro_vdn.nn import sites
from pyro_vdn.nn.autoregressive import AutoregressiveNormal
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.moments import Moments
from pyro_vdn.nn.neurons import VariationalNeurons
from pyro_vdn.nn.readouts import MarginalOffer


def hyperparameters_drawn(prior: nn.Module) -> AbstractContextManager[None]:
    """Draw the hyperparameters of a prior that has any; enter it before the plates of rows.

    Args:
        prior: A prior of neurons.

    Returns:
        The context inside of which the layer runs.

    Example:
        >>> from pyro_vdn.nn import StandardNormal
        >>> with hyperparameters_drawn(StandardNormal()), pyro.plate("data", 5, dim=-3):
        ...     pass
    """
    drawn: AbstractContextManager[None] = getattr(prior, "drawn", nullcontext)()
    return drawn


def sample_over_time(neurons: VariationalNeurons, h: Tensor, mask: Tensor | None = None) -> Tensor:
    """Sample the neurons of every step: memory is a choice of their prior alone.

    A layer with memory opens the plate of its steps itself; for any other it is opened here, under
    the same name and at the same dim -2.

    Args:
        neurons: The layer. Call this in the ``forward`` of the module that holds it, inside of
            `hyperparameters_drawn`.
        h: Its input, `(..., rows, time, features)`, in a plate of rows at dim -3.
        mask: Boolean, `(..., rows, time)`: which steps have input.

    Returns:
        The units of every step, `(..., rows, time, units)`.

    Example:
        >>> from pyro_vdn.nn import AutoregressiveNormal
        >>> h = torch.zeros(5, 10, 3)
        >>> for prior in (None, AutoregressiveNormal(4)):
        ...     layer = VariationalNeurons(3, 4, prior=prior)
        ...     with pyro.plate("data", 5, dim=-3):
        ...         sample_over_time(layer, h).shape
        torch.Size([5, 10, 4])
        torch.Size([5, 10, 4])
    """
    path = sites.attribute_path(neurons)
    own = links_steps(neurons.prior, h[..., :1, :])
    time = nullcontext() if own else pyro.plate(sites.time_plate(path), h.shape[-2], dim=-2)
    with time:
        units: Tensor = neurons(h, mask)
    return units


def links_steps(prior: nn.Module, h: Tensor) -> bool:
    """Say whether a prior, also one of a user's own, is a chain over time.

    Args:
        prior: A prior of neurons.
        h: An input to ask it with, `(..., time, features)`.

    Example:
        >>> links_steps(AutoregressiveNormal(4), torch.zeros(1, 3))
        True
    """
    if isinstance(prior, AutoregressiveNormal):
        return True
    with torch.no_grad(), torch.random.fork_rng(devices=[]), pyro.poutine.block():
        return isinstance(prior(h), GaussianChain)


def carried_forward(values: Tensor, mask: Tensor | None) -> Tensor:
    """Replace each missing step by the last one that was there, and by zeros before the first.

    Args:
        values: `(..., time, features)`; what it holds at missing steps is not read.
        mask: Boolean, `(..., time)`: which steps are there; None for all.

    Returns:
        Values of the same shape.

    Example:
        >>> values = torch.tensor([[0.0], [2.0], [0.0]])
        >>> carried_forward(values, torch.tensor([False, True, False])).squeeze(-1)
        tensor([0., 2., 2.])
    """
    if mask is None:
        return values
    steps = torch.arange(values.shape[-2], device=values.device)
    last = steps.where(mask, 0).cummax(-1).values
    carried = values.gather(-2, last.unsqueeze(-1).expand_as(values))
    return carried.masked_fill(~any_so_far(mask).unsqueeze(-1), 0.0)


def any_so_far(mask: Tensor) -> Tensor:
    """Return whether a mask was true at this step or before, `(..., time)`.

    Args:
        mask: Boolean, `(..., time)`.

    Example:
        >>> any_so_far(torch.tensor([False, True, False]))
        tensor([False,  True,  True])
    """
    return mask.cummax(-1).values


def of_last_steps(offer: MarginalOffer, steps: int) -> MarginalOffer:
    """Return the offer of a likelihood that observes the last steps of its layer alone.

    Args:
        offer: One whose `integrate` takes the moments of these steps.
        steps: Their number.

    Returns:
        The offer for the moments of all steps.

    Example:
        >>> offer = MarginalOffer(torch.zeros(5, 4), lambda moments: moments.mean.shape)
        >>> of_last_steps(offer, 2).integrate(Moments(torch.zeros(5, 4), torch.ones(5, 4)))
        torch.Size([2, 4])
    """

    def last(moments: Moments) -> Moments:
        return Moments(moments.mean[..., -steps:, :], moments.variance[..., -steps:, :])

    return offer._replace(integrate=lambda moments: offer.integrate(last(moments)))
