"""How much of its layers a model uses: one line per layer, and its units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyro_vdn.diagnostics.units.statistics import UnitStatistics, by_layer

Array = NDArray[np.float64]


class LayerUsage(NamedTuple):
    r"""What a layer's units do over a data set, on average.

    Every quantity is defined in :class:`UnitStatistics`, which has it unit by unit.

    Args:
        units: Number of units.
        kl: KL from posterior to prior of the whole layer, in nats per row: the sum over units.
        kl_per_unit: The same per unit, in nats.
        mu2: Mean over units of the energy :math:`E[\mu^2]`.
        scale: Mean over units of the posterior scale :math:`\sqrt{E[\sigma^2]}`.
        active_share: Share of units whose mean KL exceeds the threshold, 1e-4 nats by default.
        contraction: Mean over units of :math:`1 - E[\mathrm{Var}_q] / E[\mathrm{Var}_p]`.
        by_unit: ``"kl"``, ``"mu2"``, ``"scale"``, ``"contraction"``, ``"information"`` and
            ``"active"`` (0 or 1) of each unit, `(units,)`.

    Example:
        >>> LayerUsage(2, 1.0, 0.5, 0.1, 0.2, 1.0, 0.9, {}).kl
        1.0
    """

    units: int
    kl: float
    kl_per_unit: float
    mu2: float
    scale: float
    active_share: float
    contraction: float
    by_unit: dict[str, Array]


def latent_usage(layers: Mapping[str, UnitStatistics] | UnitStatistics) -> dict[str, LayerUsage]:
    """Return what each layer's units do, in one table.

    Args:
        layers: Statistics by layer path, as `evaluate_tokens` and `unit_statistics` return them, or
            of one layer.

    Returns:
        Usage by layer path.

    Raises:
        InputError: If there is no layer.

    Example:
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import record
        >>> with record() as seen:
        ...     _ = VariationalNeurons(3, 4)(torch.randn(50, 3))
        >>> usage = latent_usage({"neurons": UnitStatistics.of(seen[""])})["neurons"]
        >>> usage.units, usage.active_share, usage.by_unit["kl"].shape
        (4, 1.0, (4,))
    """
    return {path: _usage(statistics) for path, statistics in by_layer(layers).items()}


def _usage(statistics: UnitStatistics) -> LayerUsage:
    names = ("kl", "mu2", "scale", "contraction", "information", "active")
    by_unit = {name: np.asarray(getattr(statistics, name), dtype=np.float64) for name in names}
    return LayerUsage(
        units=len(statistics.kl),
        kl=float(statistics.kl.sum()),
        kl_per_unit=float(statistics.kl.mean()),
        mu2=float(statistics.mu2.mean()),
        scale=float(statistics.scale.mean()),
        active_share=float(by_unit["active"].mean()),
        contraction=float(statistics.contraction.mean()),
        by_unit=by_unit,
    )
