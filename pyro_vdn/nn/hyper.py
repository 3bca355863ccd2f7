"""Hyper-priors: global latent sites that stand outside of the plates of rows."""

from __future__ import annotations

from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn import sites
from pyro_vdn.nn.sites import Message


class Hyperparameters(NamedTuple):
    """What an autoregression is made of, a time dimension of size 1 before the units.

    Args:
        partials: Partial autocorrelations, `(..., 1, units, order)`.
        scale: Innovation scale, `(..., 1, units)`.

    Example:
        >>> Hyperparameters(torch.zeros(1, 4, 2), torch.ones(1, 4)).partials.shape
        torch.Size([1, 4, 2])
    """

    partials: Tensor
    scale: Tensor


def check_support(what: str, prior: dist.Distribution, low: float, high: float) -> None:
    """Raise `InputError` unless a hyper-prior is a scalar one that stays in `(low, high)`.

    Args:
        what: The argument.
        prior: The hyper-prior.
        low: Lower end.
        high: Upper end.
    """
    shape = tuple(prior.shape())
    support = prior.support
    ends = getattr(support, "lower_bound", -torch.inf), getattr(support, "upper_bound", torch.inf)
    if shape or not (low <= float(ends[0]) and float(ends[1]) <= high):
        raise InputError(
            what,
            expected=f"a scalar hyper-prior on ({low}, {high})",
            got=f"{type(prior).__name__} of shape {shape} on {support}",
            hint="dist.Uniform(-1.0, 1.0) or dist.AffineBeta for phi, dist.LogNormal for a scale",
        )


def draw_global(path: str, name: str, prior: dist.Distribution, shape: tuple[int, ...]) -> Tensor:
    """Draw a value per unit at a global latent site.

    Args:
        path: Path of the module that owns the site.
        name: Last part of the site's name.
        prior: Its hyper-prior, a scalar distribution.
        shape: `(units,)` or `(units, order)`, further dimensions being event dimensions.

    Returns:
        The draw, `(..., units)` or `(..., units, order)`.

    Raises:
        InputError: In a plate of rows, where a global value would be drawn once a row.
    """
    expanded = prior.expand(shape).to_event(len(shape) - 1)
    site = sites.hyper_site(path, name)
    with _OutsideOfRows(site), pyro.plate(sites.hyper_plate(path, name), shape[0], dim=-1):
        draw: Tensor = pyro.sample(site, expanded)
    return draw


class _OutsideOfRows(Messenger):
    """Refuse a global site in a plate that is neither its own nor one of particles."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg["name"] != self.site:
            return
        rows = [
            frame.name
            for frame in msg["cond_indep_stack"]
            if frame.dim != -1 and frame.name not in sites.PARTICLE_PLATES
        ]
        if rows:
            raise InputError(
                f"site '{self.site}'",
                expected="a global draw, outside of plates of rows",
                got=f"one inside of plate '{rows[0]}'",
                hint="`with layer.prior.drawn(), pyro.plate(...):` around the layer",
            )
