"""Which layers and units the variance between draws comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_layers, check_runs
from pyro_vdn.diagnostics.inference._interventions import Interventions, variances_of_batch
from pyro_vdn.errors import InputError
from pyro_vdn.infer.closed_form import Inputs, batches_of
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.joint_draws import look_at
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive, check_rows
from pyro_vdn.poutine import record

Program = Callable[..., Any]


class Share(NamedTuple):
    """A share of the variance between draws, over all rows.

    Args:
        value: The share, `(...)`.
        error: Its standard error over rows, which holds the noise of draws too where each row has
            its own; NaN for one row.

    Example:
        >>> Share.of(torch.tensor([[1.0, 3.0]]), torch.tensor([4.0, 4.0])).value
        tensor([0.5000])
    """

    value: Tensor
    error: Tensor

    @classmethod
    def of(cls, parts: Tensor, whole: Tensor) -> Share:
        """Return the share of parts `(..., rows)` in a whole `(rows,)`, mean over mean."""
        value = parts.mean(-1) / whole.mean()
        if len(whole) < 2 or parts.numel() == 0:
            return cls(value, torch.full_like(value, math.nan))
        rest = parts - value.unsqueeze(-1) * whole
        return cls(value, rest.std(-1) / len(whole) ** 0.5 / whole.mean())


@dataclass(frozen=True, eq=False)
class LayerVariances:
    """The variance between draws that comes from a layer and from its units, row by row.

    All are in squared units of the outcome, summed over outputs and steps.

    Args:
        units: Which units were measured.
        lost: What is lost when a unit is held at its mean, `(units, rows)`.
        alone: What is left when all others are, `(units, rows)`.
        layer_lost: What is lost when the layer is held, `(rows,)`.
        layer_alone: What is left when all other layers are, `(rows,)`.

    Example:
        >>> zeros = torch.zeros(2, 5)
        >>> LayerVariances((0, 3), zeros, zeros, zeros[0], zeros[0]).units
        (0, 3)
    """

    units: tuple[int, ...]
    lost: Tensor
    alone: Tensor
    layer_lost: Tensor
    layer_alone: Tensor


@dataclass(frozen=True, eq=False)
class UnitShares:
    """Shares of the variance between draws by layer and unit; printed, a line per layer.

    Args:
        between: The variance between draws, summed over outputs and steps, `(rows,)`.
        layers: By layer path, where it comes from.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, num_units=4)
        >>> shares = unit_shares(model, NeuronGuide(model), torch.randn(50, 3))
        >>> shares.lost("neurons").value.shape, round(float(shares.layer_lost("neurons").value), 3)
        (torch.Size([4]), 1.0)
    """

    between: Tensor
    layers: dict[str, LayerVariances]

    def lost(self, path: str) -> Share:
        """Return the share that is lost when a unit is held at its mean, `(units,)`."""
        return Share.of(self.layers[path].lost, self.between)

    def alone(self, path: str) -> Share:
        """Return the share that is left when all other units are held, `(units,)`."""
        return Share.of(self.layers[path].alone, self.between)

    def layer_lost(self, path: str) -> Share:
        """Return the share that is lost when a layer is held at its mean, a scalar."""
        return Share.of(self.layers[path].layer_lost, self.between)

    def layer_alone(self, path: str) -> Share:
        """Return the share that is left when all other layers are held, a scalar."""
        return Share.of(self.layers[path].layer_alone, self.between)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one plain dictionary per unit."""
        rows = []
        for path, layer in self.layers.items():
            lost, alone = self.lost(path), self.alone(path)
            for at, unit in enumerate(layer.units):
                row = {"layer": path, "unit": unit, "lost": float(lost.value[at])}
                row |= {"lost_error": float(lost.error[at]), "alone": float(alone.value[at])}
                rows.append(row | {"alone_error": float(alone.error[at])})
        return rows

    def __str__(self) -> str:
        width = max(map(len, ("layer", *self.layers)))
        lines = [
            f"variance between draws {float(self.between.mean()):.4g}, mean over "
            f"{len(self.between)} rows; shares of it, lost when held and left alone",
            f"{'layer':<{width}}  {'lost':>14}  {'alone':>14}  {'sum over units':>17}  "
            "largest unit",
        ]
        for path, layer in self.layers.items():
            lost, alone = self.layer_lost(path), self.layer_alone(path)
            shares, singly = self.lost(path).value, self.alone(path).value
            largest = ""
            if layer.units:
                at = int(shares.argmax())
                largest = f"{layer.units[at]} ({float(shares[at]):.3f})"
            lines.append(
                f"{path:<{width}}  {float(lost.value):>6.3f} ± {float(lost.error):.3f}  "
                f"{float(alone.value):>6.3f} ± {float(alone.error):.3f}  "
                f"{float(shares.sum()):>8.3f} {float(singly.sum()):>8.3f}  {largest}"
            )
        return "\n".join(lines)


def unit_shares(
    model: Program,
    guide: Program,
    x: Inputs,
    *,
    units: Mapping[str, Iterable[int]] | None = None,
    output: int | None = None,
    num_samples: int = 64,
    batch_size: int = 256,
    seed: int = 0,
    site: str = "y",
) -> UnitShares:
    r"""Measure the share of the variance between draws that each layer and unit brings in.

    Let :math:`f(\varepsilon) = \mathbb{E}[y \mid z]` be the outcome's expectation as a function of
    all units' noise. A unit is held at its posterior mean, as by ``clamp(..., "mean")``, where its
    noise is 0:

    .. math:: \text{lost}_i = 1 - \frac{\operatorname{Var} f(\varepsilon_i = 0)}
        {\operatorname{Var} f}, \qquad
        \text{alone}_i = \frac{\operatorname{Var} f(\varepsilon_j = 0,\ j \neq i)}
        {\operatorname{Var} f}

    and the same for layers. Variances are summed over outputs and steps (of classes, over their
    probabilities) and averaged over rows.

    **What they sum to.** Where `f` is a sum over units, as after a linear or rectified readout of
    one layer, both are the same, for a linear one :math:`w_i^2 \sigma_i^2`, and sum to 1. Where
    noises are multiplied, as through layers above, with parts :math:`V_T` of the variance from
    products of the units in `T`, lost shares sum to :math:`\sum_T |T| V_T`, which is 1 or more, as
    each product is lost with any of its factors, and those alone to the :math:`V_T` of single
    units, which is 1 or less. Beyond products no sum is fixed, and a unit may even lose less than
    nothing, for one: noise that keeps a saturated layer above from its limit.

    **Precision.** All runs see the same noise, of mean 0 and variance 1 over draws exactly. What
    unit `i` adds, :math:`d_i = f - f(\varepsilon_i = 0)`, gives

    .. math:: \operatorname{Var} f - \operatorname{Var} f(\varepsilon_i = 0) =
        \operatorname{Var} d_i + 2 \operatorname{Cov}(\bar d_i, f(\varepsilon_i = 0))

    with :math:`\bar d_i` the mean of :math:`d_i` and its value for :math:`-\varepsilon_i`, in which
    what is odd cancels; and in the variance of the whole, what chance correlations between units
    add to the sum of their own parts is taken out. So for linear readouts every share is exact with
    any number of draws above that of a unit's latent dimensions, and what is nearly linear has
    nearly no noise; parts from products are too small by about one part in `num_samples`.

    It costs three runs per unit, three per layer and two more, each with all rows and draws:
    hundreds of rows are enough.

    Args:
        model: A Pyro program with rows in the outermost plate, called as ``model(*x)``.
        guide: Its guide, which takes the posteriors that neurons offer; they must be normal.
        x: Inputs, `(rows, ...)`, or several of them.
        units: By layer path, which units to measure; all of all layers by default. The variance of
            the whole and of layers is measured with all of their units.
        output: The one output or class, of the last dimension, to measure; all by default, which
            wants them in one unit.
        num_samples: Draws per row, at least 2.
        batch_size: Rows per run: memory grows with batch_size x units x num_samples.
        seed: Seed of the draws; the caller's random state is untouched.
        site: Name of the outcome's site.

    Returns:
        Variances row by row, and shares.

    Raises:
        InputError: If a layer does not run in the guide or a unit is not in it, for a posterior
            that is not normal, fewer than two draws, an output that is not there, or inputs as
            `predict` refuses them.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import DeepRegression
        >>> model = DeepRegression(3, num_units=(2, 2))
        >>> print(unit_shares(model, NeuronGuide(model), torch.randn(50, 3)))  # doctest: +ELLIPSIS
        variance between draws ...
        layer     ...
        layers.0  ...
        layers.1  ...

    Source: Saltelli et al., *Variance Based Sensitivity Analysis of Model Output*, 2010, for shares
    with other units averaged rather than held.
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    check_positive(num_samples=num_samples, batch_size=batch_size)
    check_rows(inputs, None, missing_allowed=reads_missing(model))
    if num_samples < 2:
        raise InputError("num_samples", expected="at least 2", got="1", hint="num_samples=64")
    give_own_store(model, guide)
    with own_noise(seed), evaluating(model, guide), torch.no_grad():
        sizes = _sizes(guide, inputs)
        chosen = _chosen(units, sizes)
        look = look_at(model, inputs)
        batches = [
            variances_of_batch(
                Interventions(
                    model, guide, batch, num_samples, site, look, seed + 1000003 * at, output, sizes
                ),
                chosen,
            )
            for at, (batch, _) in enumerate(batches_of(inputs, None, batch_size))
        ]
    layers = {
        path: LayerVariances(
            chosen[path], *(torch.cat(parts, -1) for parts in zip(*by_batch, strict=True))
        )
        for path, by_batch in ((path, [layers[path] for _, layers in batches]) for path in chosen)
    }
    return UnitShares(torch.cat([between for between, _ in batches]), layers)


def _sizes(guide: Program, inputs: tuple[Tensor, ...]) -> dict[str, int]:
    """Return the number of units of every layer that runs in the guide."""
    with record() as seen:
        guide(*(value[:1] for value in inputs))
    check_runs(seen)
    return {path: len(layer.kl.mean) for path, layer in seen.items()}


def _chosen(
    units: Mapping[str, Iterable[int]] | None, sizes: dict[str, int]
) -> dict[str, tuple[int, ...]]:
    """Return the units to measure by layer, checked."""
    if units is None:
        return {path: tuple(range(size)) for path, size in sizes.items()}
    check_layers("units", units, sizes)
    chosen = {path: tuple(of_layer) for path, of_layer in units.items()}
    for path, of_layer in chosen.items():
        for unit in of_layer:
            if not 0 <= unit < sizes[path]:
                raise InputError(
                    f"units['{path}']",
                    expected=f"unit indices in 0 to {sizes[path] - 1}",
                    got=str(unit),
                    hint="count units from 0",
                )
    return chosen
