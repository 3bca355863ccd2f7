"""Measure the units of a model over a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.diagnostics._checks import check_layers, check_runs
from pyro_vdn.diagnostics._rows import Batches, Rows, check_total
from pyro_vdn.diagnostics.units.statistics import UnitStatistics
from pyro_vdn.diagnostics.units.use import downstream_use
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.poutine import LayerRecord, record

Program = Callable[..., Any]


def unit_statistics(
    model: Program,
    guide: Program,
    batches: Batches,
    *,
    bands: Mapping[str, Sequence[Tensor | ArrayLike]] | None = None,
    use: bool = True,
    num_samples: int = 64,
    max_use_rows: int = 1024,
    seed: int = 0,
    site: str = "y",
) -> dict[str, UnitStatistics]:
    """Measure what every unit does over a data set, batch by batch.

    No row is kept, no gradient taken; parts in training mode are put into evaluation mode for the
    time being. All but the downstream use costs one run of the guide over the data; see
    :func:`downstream_use` for that one.

    Args:
        model: A Pyro program with rows at dim -2, called as ``model(x)``.
        guide: Its guide, which takes the posteriors that neurons offer, such as `NeuronGuide`.
        batches: Batches `(x, y)` that can be gone through again, such as a `DataLoader`, or the
            pair of tensors `(x, y)`; with ``use=False``, inputs alone will do.
        bands: By layer path, bounds `(low, high, ...)` on `mu2`, each `(units,)` or a number.
        use: Whether to measure downstream use, one more evaluation per unit.
        num_samples: Draws per row for downstream use where the model offers no closed form.
        max_use_rows: Most rows for downstream use, evenly spread over the data.
        seed: Seed of all draws; the caller's random state is untouched.
        site: Name of the outcome's site.

    Returns:
        Statistics by layer path, in the order the layers run.

    Raises:
        InputError: If no layer runs in the guide, a band belongs to none, there are no rows, or
            they are not finite.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, num_units=4)
        >>> data = torch.randn(50, 3), torch.randn(50, 1)
        >>> found = unit_statistics(model, NeuronGuide(model), data, bands={"neurons": (0.0, 9.0)})
        >>> found["neurons"].rows, found["neurons"].use.shape
        (50, (4,))
        >>> found["neurons"].band_shares().within
        1.0
    """
    rows = Rows(batches, targets=use, missing_allowed=reads_missing(model))
    seen = record_rows(model, guide, rows, seed=seed)
    used = {}
    if use:
        used = downstream_use(
            model,
            guide,
            rows.batches,
            num_samples=num_samples,
            max_rows=max_use_rows,
            seed=seed,
            site=site,
        )
    bands = bands or {}
    check_layers("bands", bands, seen)
    return {
        path: UnitStatistics.of(layer, band=bands.get(path), use=used.get(path))
        for path, layer in seen.items()
    }


def random_layers(layers: Mapping[str, LayerRecord]) -> dict[str, LayerRecord]:
    """Return the layers whose units are all distributions; a deterministic twin's are points.

    Args:
        layers: Records by layer path.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> from pyro_vdn.poutine import deterministic
        >>> with record() as seen, deterministic():
        ...     _ = Regression(3)(torch.zeros(5, 3))
        >>> list(seen), list(random_layers(seen))
        (['neurons'], [])
    """
    return {path: layer for path, layer in layers.items() if bool((layer.scale.mean > 0).all())}


def record_rows(
    model: Program,
    guide: Program,
    rows: Rows,
    *,
    seed: int = 0,
    on_batch: Callable[[Mapping[str, LayerRecord], Sequence[Any]], None] = lambda *_: None,
) -> Mapping[str, LayerRecord]:
    """Run a guide over all rows and return what its layers did.

    Args:
        model: The program.
        guide: Its guide.
        rows: The data.
        seed: Seed of the draws.
        on_batch: Called after every batch with the record so far and the batch `(x, ..., y)`.

    Returns:
        Records by layer path.

    Raises:
        InputError: If there are no rows, or no layer runs in the guide.
    """
    give_own_store(model, guide)
    total = 0
    with own_noise(seed), evaluating(model, guide), torch.no_grad(), record() as seen:
        for batch in rows:
            guide(*batch[:-1])
            on_batch(seen, batch)
            total += len(batch[0])
    check_total(total)
    check_runs(seen)
    return dict(seen)
