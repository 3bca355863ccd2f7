"""Effect: a posterior of its own for every row, on top of the amortized one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.site import Site
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.normals import ShiftedNormal
from pyro_vdn.nn.sites import Message
from pyro_vdn.poutine import NeuronMessenger
from pyro_vdn.poutine.leaves import change_leaves, change_posterior, is_plain_normal


class Change(NamedTuple):
    r"""What is put on a posterior: `Normal(mu + sigma d, (sigma e^l)^2)`.

    Args:
        shift: `d`, in standard deviations, of the site's shape without draws.
        log_factor: `l`, of the same shape.

    Example:
        >>> Change(torch.zeros(5, 4), torch.zeros(5, 4)).shift.shape
        torch.Size([5, 4])
    """

    shift: Tensor
    log_factor: Tensor

    def detached(self) -> Change:
        """Return the same without gradients."""
        return Change(self.shift.detach(), self.log_factor.detach())

    def copied(self) -> Change:
        """Return a copy that later steps do not move."""
        return Change(self.shift.clone(), self.log_factor.clone())


class Refinement(NeuronMessenger):
    """Shift and scale every posterior by numbers of each row, unit and step.

    Args:
        changes: By site, the numbers; a site that is not named is left alone.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import PosteriorMessenger
        >>> layer, change = VariationalNeurons(3, 4), Change(torch.ones(5, 4), torch.zeros(5, 4))
        >>> with Refinement({"z": change}) as refinement, PosteriorMessenger():
        ...     z = layer(torch.zeros(5, 3))
        >>> list(refinement.amortized)
        ['z']
    """

    def __init__(self, changes: Mapping[str, Change]) -> None:
        super().__init__()
        self.changes = changes
        self.amortized: dict[str, dist.Distribution] = {}

    def on_neuron(self, msg: Message) -> None:
        """Change the posterior, and remember what it was."""
        name = msg["name"]
        if name not in self.changes:
            return

        def change(posterior: dist.Distribution) -> dist.Distribution:
            self.amortized[name] = posterior
            return _changed(posterior, self.changes[name], name)

        change_posterior(msg, change)

    def stopped(self, site: Site) -> dist.Distribution:
        """Return a site's posterior as it is, its own numbers without gradients.

        The bound's gradient through draws alone is unbiased too, and has no variance where the
        posterior is exact.
        """
        if site.name not in self.changes:
            return site.fn
        posterior = self.amortized[site.name]
        return _changed(posterior, self.changes[site.name].detached(), site.name)


def _changed(posterior: dist.Distribution, change: Change, name: str) -> dist.Distribution:
    def of_leaf(leaf: dist.Distribution, event_dim: int) -> dist.Distribution:
        factor = change.log_factor.exp()
        if isinstance(leaf, GaussianChain):
            offset, scale = leaf.offset + leaf.scale * change.shift, leaf.scale * factor
            shape: Any = torch.broadcast_shapes(leaf.batch_shape, scale.shape)  # type: ignore[no-untyped-call]
            return GaussianChain(
                leaf.coefficients, offset, scale, batch_shape=shape, validate_args=False
            )
        if isinstance(leaf, dist.Normal) and is_plain_normal(leaf):
            loc = leaf.loc + leaf.scale * change.shift
            return ShiftedNormal(loc, leaf.scale * factor, validate_args=False)
        raise InputError(
            f"site '{name}'",
            expected="a normal posterior, or a chain over time",
            got=f"a {type(leaf).__name__}",
            hint="NormalPosterior() or one of pyro_vdn.guides.markov, with steps='parallel'",
        )

    return change_leaves(posterior, of_leaf)


def no_changes(like: Mapping[str, Tensor]) -> dict[str, Change]:
    """Return changes that leave sites as they are, with gradients.

    Args:
        like: By site, a tensor of its shape without draws.
    """
    return {
        name: Change(*(torch.zeros_like(value, requires_grad=True) for _ in range(2)))
        for name, value in like.items()
    }
