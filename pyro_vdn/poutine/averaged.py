"""The average of several independent draws, as a distribution."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

from pyro_vdn.errors import InputError
from pyro_vdn.nn.divergence import closed_form_kl, is_silent


class Averaged(TorchDistribution):
    r"""The distribution of `1/S sum_s z_s` with independent `z_s` from one distribution.

    Its KL to a prior is that of *one* draw, as the method charges it. Of a distribution without a
    density, such as dropout's, it has none either; the average of averages is one over all draws.

    Args:
        base: The distribution of each draw.
        num_draws: Number S of draws.

    Raises:
        InputError: Where the density of an average is asked for that is not normal.

    Example:
        >>> averaged = Averaged(dist.Normal(torch.zeros(10_000), 1.0), 4)
        >>> averaged.variance[0].item()
        0.25
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - torch's own name and type
    support = constraints.real

    def __init__(self, base: dist.Distribution, num_draws: int) -> None:
        if isinstance(base, Averaged):
            base, num_draws = base.base, num_draws * base.num_draws
        self.base: dist.Distribution = base
        self.num_draws = num_draws
        if is_silent(base):
            self._mask = False
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
        """Return the log density of an average: of normals, and nothing where one draw has none."""
        if is_silent(self.base):
            return value.new_zeros(value.shape[: value.dim() - self.event_dim])
        if not isinstance(self.base, dist.Normal):
            raise InputError(
                "average_draws",
                expected="a normal posterior, where a loss asks for the density of an average",
                got=f"a {type(self.base).__name__}",
                hint="LocalELBO, which takes the KL in closed form and asks for no density",
            )
        scale = self.base.scale / self.num_draws**0.5
        log_prob: Tensor = dist.Normal(self.base.loc, scale, validate_args=False).log_prob(value)
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
    if kl is None:
        kl = kl_divergence(q.base, p)
    # Pyro's losses want the batch shape, of which a closed form may be a smaller part.
    shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)  # type: ignore[no-untyped-call]
    return kl.expand(shape)


register_kl(Averaged, dist.Distribution)(_kl_of_one_draw)  # type: ignore[no-untyped-call]
