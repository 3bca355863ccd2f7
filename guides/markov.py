"""Posteriors of neurons with memory, from no link between steps to the exact posterior chain.

| posterior | `q(z_t | past)` | for |
| --- | --- | --- |
| `NormalPosterior` | `q(z_t | h_t)`: factorised | short memory, or speed |
| `FilteringPosterior` | `q(z_t | z_{t-1}, h_<=t)` | forecasts: no step looks ahead |
| `SmoothingPosterior` | `q(z_t | z_{t-1}, h_1:T)`, the look ahead amortized | whole sequences |
| `StructuredPosterior` | the same, the look ahead computed from potentials | whole sequences |

All but the first multiply the prior's conditional by a Gaussian factor, so a unit without input
follows its prior, and all of them are linear-Gaussian chains: `GaussianChain`.
"""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.normals import unexpanded
from pyro_vdn.nn.parts import bound
from pyro_vdn.nn.posteriors import NormalPosterior
from pyro_vdn.nn.potentials import Messages, backward_messages, updated
from pyro_vdn.nn.shapes import LayerShape
from pyro_vdn.nn.summaries import DecayingSummary

__all__ = [
    "FilteringPosterior",
    "MarkovPosterior",
    "NormalPosterior",
    "SmoothingPosterior",
    "StructuredPosterior",
]


class MarkovPosterior(nn.Module):
    r"""A posterior that multiplies the prior chain by amortized Gaussian potentials.

    A potential is `Normal(z_t; mu(g_t), sigma(g_t)^2)` as a function of `z_t`, with `g_t` made of
    the layer's input. Where there is no input its precision is 0.

    Args:
        potential: The module that gives the potentials, ``forward(g) -> Normal``; default
            `NormalPosterior()`.

    Example:
        >>> from pyro_vdn.nn import AutoregressiveNormal, VariationalNeurons
        >>> prior, posterior = AutoregressiveNormal(4), StructuredPosterior()
        >>> layer = VariationalNeurons(3, 4, prior=prior, posterior=posterior)
        >>> layer(torch.zeros(5, 10, 3)).shape
        torch.Size([5, 10, 4])
    """

    #: The layer hands the prior over: ``forward(h, prior, mask)``.
    needs_prior = True

    def __init__(self, potential: NormalPosterior | None = None) -> None:
        super().__init__()
        self.potential = potential if potential is not None else NormalPosterior()

    def bind(self, shape: LayerShape) -> None:
        """Make the parameters for a layer of the given shape."""
        bound(self.potential, shape._replace(in_features=self._make_features(shape)))

    def _make_features(self, shape: LayerShape) -> int:
        """Make what gives the features that potentials read, and return their number."""
        return shape.in_features

    def features(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """Return what the potentials read, `(..., time, features)`."""
        return h

    def multiply_loc_(self, gain: Tensor) -> None:
        """Multiply each unit's location by its gain, `(num_units,)`, in place."""
        self.potential.multiply_loc_(gain)

    def forward(
        self, h: Tensor, prior: dist.Distribution, mask: Tensor | None = None
    ) -> GaussianChain:
        """Return the posterior chain.

        Args:
            h: The layer's input, `(..., time, in_features)`.
            prior: The prior chain, of batch shape `(..., time, units)`.
            mask: Boolean, `(..., time)`: which steps have input.

        Raises:
            InputError: For a prior without memory.
        """
        if not isinstance(prior, GaussianChain):
            raise InputError(
                type(self).__name__,
                expected="a layer with a prior over time",
                got=f"a {type(prior).__name__}",
                hint="VariationalNeurons(..., prior=AutoregressiveNormal(num_units))",
            )
        potential = self.potential(self.features(h, mask))
        assert isinstance(potential, dist.Normal)
        precision = unexpanded(potential.scale).square().reciprocal()
        informed = self.informed(mask)
        if informed is not None:
            precision = torch.where(informed.unsqueeze(-1), precision, 0.0)
        shift = precision * potential.loc
        precision = precision.expand(*precision.shape[:-2], *shift.shape[-2:])
        batch_shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
            prior.batch_shape, shift.shape
        )
        return updated(prior, self.messages(prior, precision, shift), batch_shape)

    def informed(self, mask: Tensor | None) -> Tensor | None:
        """Return which steps have a potential, `(..., time)`, or None where all have."""
        return mask

    def messages(self, prior: GaussianChain, precision: Tensor, shift: Tensor) -> Messages:
        """Return each step's factor: here its own potential alone."""
        rest = precision.new_zeros((*precision.shape, prior.order - 1))
        return Messages(torch.cat([precision.unsqueeze(-1), rest], -1), shift)


class FilteringPosterior(MarkovPosterior):
    r"""The posterior `q(z_t | z_{t-1}, h_<=t)`, which no later step can change.

    `q(z_t | z_{t-1}) = p(z_t | z_{t-1}) Normal(z_t; mu(g_t), sigma(g_t)^2)`, normalised, with
    `g_t = (h_t, r_t)` and `r_t` a `DecayingSummary` of the steps so far.

    Args:
        potential: The module that gives the potentials; default `NormalPosterior()`.
        summary_size: Channels of the summary; by default one per unit, 0 for none. Given `z_{t-1}`
            a Markov model needs none; it helps where the model is richer than its prior.

    Example:
        >>> from pyro_vdn.nn import AutoregressiveNormal, VariationalNeurons
        >>> prior, posterior = AutoregressiveNormal(4), FilteringPosterior()
        >>> layer = VariationalNeurons(3, 4, prior=prior, posterior=posterior)
        >>> layer(torch.zeros(5, 10, 3)).shape
        torch.Size([5, 10, 4])

    Source:
        Krishnan, Shalit, Sontag, *Structured Inference Networks for Nonlinear State Space Models*,
        AAAI 2017.
    """

    _directions: tuple[bool, ...] = (False,)

    def __init__(
        self, potential: NormalPosterior | None = None, *, summary_size: int | None = None
    ) -> None:
        super().__init__(potential)
        self.summary_size = summary_size

    def _make_features(self, shape: LayerShape) -> int:
        size = shape.num_units if self.summary_size is None else self.summary_size
        directions = self._directions if size else ()
        self.summaries = nn.ModuleList(
            DecayingSummary(shape.in_features, size, reverse=reverse) for reverse in directions
        )
        return shape.in_features + size * len(directions)

    def features(self, h: Tensor, mask: Tensor | None) -> Tensor:
        """Return input and summaries, `(..., time, features)`."""
        return torch.cat([h, *(summary(h, mask) for summary in self.summaries)], -1)


class SmoothingPosterior(FilteringPosterior):
    r"""The posterior `q(z_t | z_{t-1}, h_1:T)`, with what later steps say amortized.

    As `FilteringPosterior`, with a second summary, of the steps from `t` on. A step has a potential
    where it, or any later one, has input. For linear-Gaussian chains of positive `phi` the exact
    posterior is of this form away from the ends, where the precision of what follows is constant.

    Args:
        potential: The module that gives the potentials; default `NormalPosterior()`.
        summary_size: Channels of each summary; by default one per unit.

    Example:
        >>> from pyro_vdn.nn import AutoregressiveNormal, VariationalNeurons
        >>> prior, posterior = AutoregressiveNormal(4), SmoothingPosterior()
        >>> layer = VariationalNeurons(3, 4, prior=prior, posterior=posterior)
        >>> layer(torch.zeros(5, 10, 3)).shape
        torch.Size([5, 10, 4])

    Source:
        Krishnan, Shalit, Sontag, *Structured Inference Networks for Nonlinear State Space Models*,
        AAAI 2017.
    """

    _directions = (False, True)

    def informed(self, mask: Tensor | None) -> Tensor | None:
        """Return the steps up to the last one with input, `(..., time)`."""
        return None if mask is None else mask.flip(-1).cummax(-1).values.flip(-1)


class StructuredPosterior(MarkovPosterior):
    r"""The posterior `q(z_1:T) ~ p(z_1:T) prod_t Normal(z_t; mu(h_t), sigma(h_t)^2)`.

    The prior chain times a potential per step that reads this step's input alone; messages from
    later steps are computed, not learned. The precision of the whole sequence is banded, for order
    1 tridiagonal. Exact for a linear-Gaussian model with a likelihood per unit.

    Args:
        potential: The module that gives the potentials; default `NormalPosterior()`.

    Example:
        >>> from pyro_vdn.nn import AutoregressiveNormal, VariationalNeurons
        >>> prior, posterior = AutoregressiveNormal(4), StructuredPosterior()
        >>> layer = VariationalNeurons(3, 4, prior=prior, posterior=posterior)
        >>> layer(torch.zeros(5, 10, 3)).shape
        torch.Size([5, 10, 4])

    Source:
        Johnson et al., *Composing Graphical Models with Neural Networks for Structured
        Representations and Fast Inference*, NeurIPS 2016.
    """

    def messages(self, prior: GaussianChain, precision: Tensor, shift: Tensor) -> Messages:
        """Return what all potentials from each step on say."""
        return backward_messages(prior, precision, shift)
