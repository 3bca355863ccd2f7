"""How far the marginals of a posterior are from those of Markov chains."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

CONVERGED_R_HAT = 1.05
"""Largest R-hat of chains that are taken to agree."""


@dataclass(frozen=True, eq=False)
class SiteComparison:
    r"""A latent site under a guide and under NUTS, each number by itself.

    All are of the site's shape and count standard deviations of NUTS. Errors are those of both sets
    of draws together, with :math:`1/n = 1/\mathrm{ESS} + 1/S`.

    Args:
        mean_difference: Mean of the guide less that of NUTS.
        mean_error: Its standard error.
        scale_ratio: Standard deviation of the guide over that of NUTS.
        scale_error: Its standard error, for marginals that are near normal.
        wasserstein: 1-Wasserstein distance of the marginals.
        wasserstein_floor: What it is on average for draws of one normal distribution.
        effective_draws: Effective number of NUTS draws, ESS.
        r_hat: Split R-hat of the chains.

    Example:
        >>> z = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
        >>> site = SiteComparison.of(1.0 + 0.5 * z, z.reshape(2, 1000, 3))
        >>> [round(float(value.mean()), 1) for value in (site.mean_difference, site.scale_ratio)]
        [1.0, 0.5]
    """

    mean_difference: Tensor
    mean_error: Tensor
    scale_ratio: Tensor
    scale_error: Tensor
    wasserstein: Tensor
    wasserstein_floor: Tensor
    effective_draws: Tensor
    r_hat: Tensor

    @classmethod
    def of(cls, draws: Tensor, chains: Tensor) -> SiteComparison:
        """Compare draws `(draws, *site)` with chains `(chains, draws, *site)`."""
        draws, chains = draws.detach().double(), chains.detach().double()
        reference = chains.flatten(0, 1)
        scale = reference.std(dim=0)
        ess = effective_sample_size(chains, chain_dim=0, sample_dim=1)
        ess = ess.clamp(max=float(len(reference)))
        ratio = draws.std(dim=0) / scale
        count = 1.0 / (1.0 / ess + 1.0 / len(draws))
        return cls(
            mean_difference=(draws.mean(dim=0) - reference.mean(dim=0)) / scale,
            mean_error=(1.0 / ess + ratio.square() / len(draws)).sqrt(),
            scale_ratio=ratio,
            scale_error=ratio / (2.0 * count).sqrt(),
            wasserstein=wasserstein(draws, reference) / scale,
            wasserstein_floor=_normal_floor() / count.sqrt(),
            effective_draws=ess,
            r_hat=split_gelman_rubin(chains, chain_dim=0, sample_dim=1),
        )


@dataclass(frozen=True, eq=False)
class NutsComparison(Mapping[str, SiteComparison]):
    """Latent sites under a guide and under NUTS, by name.

    Args:
        sites: By site, the comparison of each of its numbers.
        divergences: Moves of NUTS that diverged; with many of them NUTS is no reference.

    Example:
        >>> z = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
        >>> found = NutsComparison({"z": SiteComparison.of(z[:1000], z[None, 1000:])}, 0)
        >>> list(found), found.converged
        (['z'], True)
    """

    sites: dict[str, SiteComparison]
    divergences: int

    def __getitem__(self, name: str) -> SiteComparison:
        """Return the comparison of a site."""
        return self.sites[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of sites."""
        return iter(self.sites)

    def __len__(self) -> int:
        """Return the number of sites."""
        return len(self.sites)

    @property
    def converged(self) -> bool:
        """Whether NUTS is a reference: no divergence, and every R-hat at most 1.05."""
        return self.divergences == 0 and self.worst_r_hat <= CONVERGED_R_HAT

    @property
    def worst_r_hat(self) -> float:
        """The largest R-hat of all numbers; NaN where a chain stands still."""
        return float(torch.stack([site.r_hat.max() for site in self.sites.values()]).max())

    def __str__(self) -> str:
        """Return a table with a line per site, and a warning where NUTS is no reference."""
        width = max(len("site"), *map(len, self.sites))
        head = "numbers  |mean| off (worst)  sd ratio (range)    W1 (noise)   least ESS  R-hat"
        lines = [f"{'site':{width}}  {head}"]
        lines += [f"{name:{width}}  {_line(site)}" for name, site in self.sites.items()]
        if not self.converged:
            lines.append(
                f"NUTS has not converged: R-hat up to {self.worst_r_hat:.2f}, "
                f"{self.divergences} divergences"
            )
        return "\n".join(lines)


def wasserstein(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the 1-Wasserstein distance of two sets of draws, number by number.

    .. math:: W_1 = \int |F(x) - G(x)| \, dx

    Args:
        first: Draws, `(draws, ...)`.
        second: Draws, `(others, ...)`.

    Returns:
        Distance, `(...)`, in the units of the draws.

    Example:
        >>> wasserstein(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0, 2.0, 3.0]))
        tensor(2.)
    """
    values, order = torch.cat([first, second]).sort(dim=0)
    steps = torch.full_like(values, -1.0 / len(second))
    steps[order < len(first)] = 1.0 / len(first)
    gaps: Tensor = steps.cumsum(dim=0)[:-1].abs() * values.diff(dim=0)
    return gaps.sum(dim=0)


@lru_cache(maxsize=1)
def _normal_floor() -> float:
    r"""Return `sqrt(n) E[W_1]` of `n` draws from a standard normal.

    The difference of distribution functions at `x` is normal of variance `F (1 - F) / n`, so the
    mean of its size is :math:`\sqrt{2 / \pi} \int \sqrt{F (1 - F)}`.
    """
    grid = torch.linspace(-12.0, 12.0, 4801, dtype=torch.float64)
    below = torch.special.ndtr(grid)
    density = (below * torch.special.ndtr(-grid)).sqrt()
    return math.sqrt(2.0 / math.pi) * float(torch.trapezoid(density, grid))


def _line(site: SiteComparison) -> str:
    ratio = site.scale_ratio
    spread = f"{float(ratio.mean()):.2f} ({float(ratio.min()):.2f} to {float(ratio.max()):.2f})"
    off = site.mean_difference.abs()
    means = f"{float(off.mean()):.2f} ({float(off.max()):.2f})"
    distance = f"{float(site.wasserstein.mean()):.2f} ({float(site.wasserstein_floor.mean()):.2f})"
    return (
        f"{ratio.numel():7d}  {means:>18}  {spread:>18}  {distance:>12}  "
        f"{float(site.effective_draws.min()):9.0f}  {float(site.r_hat.max()):5.2f}"
    )
