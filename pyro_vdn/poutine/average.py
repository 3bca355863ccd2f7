"""Effect: every layer passes on the average of several draws instead of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

from pyro_vdn.errors import InputError
from pyro_vdn.nn.divergence import closed_form_kl
from pyro_vdn.nn.shapes import check_positive
from pyro_vdn.nn.sites import POSTERIOR, PRIOR, Message
from pyro_vdn.poutine.messenger import NeuronMessenger, wrapped


class Averaged(TorchDistribution):
    r"""The distribution of `1/S sum_s z_s` with independent `z_s` from one distribution.

    Its KL to a prior is that of *one* draw, as the method charges it.

    Args:
        base: The distribution of each draw.
        num_draws: Number S of draws.

    Example:
        >>> averaged = Averaged(dist.Normal(torch.zeros(10_000), 1.0), 4)
        >>> averaged.variance[0].item()
        0.25
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - torch's own name and type
    support = constraints.real

    def __init__(self, base: dist.Distribution, num_draws: int) -> None:
        self.base = base
        self.num_draws = num_draws
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        """Whether draws have a gradient."""
        return bool(self.base.has_rsample)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> Averaged:
        """Return the same distribution over a larger batch."""
        return Averaged(self.base.expand(torch.Size(batch_shape)), self.num_draws)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 - torch's signature
        """Draw S times and average."""
        draws: Tensor = self.base.rsample(torch.Size((self.num_draws, *sample_shape)))
        return draws.mean(0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of an average, for a normal."""
        inner, dims = self.base, 0
        if isinstance(inner, dist.Independent):
            inner, dims = inner.base_dist, inner.reinterpreted_batch_ndims
        if not isinstance(inner, dist.Normal):
            raise InputError(
                "average_draws",
                expected="a normal posterior, where a loss asks for the density of an average",
                got=f"a {type(inner).__name__}",
                hint="LocalELBO or TraceMeanField_ELBO, which take the KL in closed form",
            )
        average = dist.Normal(inner.loc, inner.scale / self.num_draws**0.5, validate_args=False)
        log_prob: Tensor = average.to_event(dims).log_prob(value)
        return log_prob

    @property
    def mean(self) -> Tensor:
        """Mean of a draw."""
        mean: Tensor = self.base.mean
        return mean

    @property
    def variance(self) -> Tensor:
        """Variance of a draw over S."""
        variance: Tensor = self.base.variance
        return variance / self.num_draws


def _kl_of_one_draw(q: Averaged, p: dist.Distribution) -> Tensor:
    kl = closed_form_kl(q.base, p)
    return kl_divergence(q.base, p) if kl is None else kl


register_kl(Averaged, dist.Distribution)(_kl_of_one_draw)  # type: ignore[no-untyped-call]


class AverageMessenger(NeuronMessenger):
    """Put the average of several posterior draws in the place of one; see `average_draws`.

    Args:
        num_draws: Number of draws, at least 1.

    Example:
        >>> AverageMessenger(4).num_draws
        4
    """

    def __init__(self, num_draws: int) -> None:
        super().__init__()
        check_positive(num_draws=num_draws)
        self.num_draws = num_draws

    def on_neuron(self, msg: Message) -> None:
        """Change the posterior, whether it is offered or already drawn from."""
        infer: dict[str, Any] = msg["infer"]
        offer = infer[POSTERIOR]
        infer[POSTERIOR] = lambda: Averaged(offer(), self.num_draws)
        if PRIOR in infer:
            msg["fn"] = Averaged(msg["fn"], self.num_draws)


def average_draws(model: Callable[..., Any] | None = None, num_draws: int = 4) -> Any:
    r"""Draw every layer S times and pass on the average: `z = 1/S sum_s z_s`, layer by layer.

    This is how the sources combine samples: after each layer nothing is left of which draw was
    which, and of a normal posterior what is passed on is `Normal(mu, sigma^2 / S)`. The KL is that
    of one draw. Without this effect S particles keep their identity through all layers.

    Args:
        model: A Pyro program to wrap; without one, the effect is returned to be used in a ``with``
            statement.
        num_draws: Number S of draws, at least 1.

    Returns:
        The wrapped program, or the effect.

    Raises:
        InputError: For a number of draws below 1, or where a loss that does not take the KL in
            closed form asks for the density of an average that is not normal.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import PosteriorMessenger
        >>> _ = torch.manual_seed(0)
        >>> layer = VariationalNeurons(3, 4)
        >>> with PosteriorMessenger():
        ...     z = average_draws(layer, 100)(torch.zeros(5000, 3))
        >>> round(z.std(0).mean().item(), 2)  # a scale of 0.3 over the root of 100
        0.03

    Source:
        Ruffenach, *Variational Neurons in Transformers for Language Modeling*, arXiv:2603.28219.
    """
    return wrapped(AverageMessenger(num_draws), model)
