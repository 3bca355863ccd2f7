"""Which units answer to which inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vdn.diagnostics._rows import Batches, Rows
from pyro_vdn.diagnostics.units.measure import record_rows
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.poutine import LayerRecord

Array = NDArray[np.float64]


def unit_responses(
    model: Callable[..., Any], guide: Callable[..., Any], batches: Batches, *, seed: int = 0
) -> dict[str, Array]:
    r"""Correlate every unit's posterior location with every input feature.

    .. math:: \rho_{ij} = \mathrm{Cov}_x(\mu_i, x_j) / \sqrt{\mathrm{Var}_x(\mu_i)\,
        \mathrm{Var}_x(x_j)}

    over all rows, batch by batch. It sees linear answers only: a unit that answers to the square of
    a feature may correlate with nothing. Where a neuron has several latent dimensions, the
    strongest of their correlations is taken, with its sign; where a row has several places,
    :math:`\mu_i` is their mean.

    Args:
        model: A Pyro program with rows first, called as ``model(x)``.
        guide: Its guide, which takes the posteriors that neurons offer, such as `NeuronGuide`.
        batches: Batches `(x, y)` that can be gone through again, or the pair of tensors; inputs
            alone will do.
        seed: Seed of the draws that upper layers see; the caller's random state is untouched.

    Returns:
        By layer path, correlations in [-1, 1], `(units, features)`, with the features of all inputs
        flattened and side by side; 0 where a unit or a feature is constant.

    Raises:
        InputError: If no layer runs in the guide, there are no rows, or they are not finite.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, num_units=4)
        >>> data = torch.randn(50, 3), torch.randn(50, 1)
        >>> unit_responses(model, NeuronGuide(model), data)["neurons"].shape
        (4, 3)
    """
    crossed: dict[str, _CrossMoments] = {}

    def add(seen: Mapping[str, LayerRecord], batch: Sequence[Any]) -> None:
        features = torch.cat([value.flatten(1).double() for value in batch[:-1]], -1)
        for path, layer in seen.items():
            units = _per_row(layer).double()  # (rows, units * latents)
            crossed.setdefault(path, _CrossMoments()).update(units, features)

    found = record_rows(
        model,
        guide,
        Rows(batches, targets=False, missing_allowed=reads_missing(model)),
        seed=seed,
        on_batch=add,
    )
    return {
        path: _strongest(moments.correlation(), len(found[path].kl.mean))
        for path, moments in crossed.items()
    }


class _CrossMoments:
    """Covariances of units with features, merged batch by batch as in Chan et al. 1983."""

    def __init__(self) -> None:
        self.rows = 0
        self.units = self.features = self.both = torch.zeros(())
        self.mean_units = self.mean_features = torch.zeros(())

    def update(self, units: Tensor, features: Tensor) -> None:
        """Merge a batch: `(rows, units)` and `(rows, features)`."""
        rows, total = len(units), self.rows + len(units)
        mean_units, mean_features = units.mean(0), features.mean(0)
        du, df = mean_units - self.mean_units, mean_features - self.mean_features
        units, features = units - mean_units, features - mean_features
        weight = self.rows * rows / total
        self.units = self.units + units.square().sum(0) + weight * du.square()
        self.features = self.features + features.square().sum(0) + weight * df.square()
        self.both = self.both + units.mT @ features + weight * torch.outer(du, df)
        self.mean_units = self.mean_units + du * (rows / total)
        self.mean_features = self.mean_features + df * (rows / total)
        self.rows = total

    def correlation(self) -> Array:
        """Return the correlations, `(units, features)`."""
        units = self.units * ~_constant(self.units, self.mean_units, self.rows)
        features = self.features * ~_constant(self.features, self.mean_features, self.rows)
        size = torch.outer(units, features).sqrt()
        found = torch.where(size > 0, self.both / size, 0.0).clamp(-1.0, 1.0)
        return found.cpu().numpy()


def _constant(squares: Tensor, mean: Tensor, rows: int) -> Tensor:
    """Say what varies by rounding errors alone, given sums of squared deviations and the mean."""
    return squares <= rows * (1e-7 * mean).square()


def _per_row(layer: LayerRecord) -> Tensor:
    """Return the last batch's locations, `(rows, units * latents)`."""
    loc = layer.last_loc
    if loc.dim() > layer.last_kl.dim():
        loc = loc.flatten(-2)
    return loc if loc.dim() == 2 else loc.flatten(1, -2).mean(1)


def _strongest(found: Array, units: int) -> Array:
    """Keep the largest correlation over latents: `(units * latents, ...)` to `(units, ...)`."""
    found = found.reshape(units, -1, found.shape[-1])
    strongest = np.abs(found).argmax(1, keepdims=True)
    return np.take_along_axis(found, strongest, 1)[:, 0]
