"""Standardisation with the statistics of the training rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_vdn.datasets.checks import require_finite, require_varying
from pyro_vdn.datasets.table import Split, Table
from pyro_vdn.errors import InputError


@dataclass(frozen=True, eq=False)
class Standardizer:
    """A shift and a scale per column: `transform(v) = (v - mean) / scale`.

    Args:
        mean: The mean of each column, `(columns,)`.
        scale: The standard deviation of each column (divided by the number of rows), `(columns,)`;
            1 for a constant column.

    Example:
        >>> values = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
        >>> standardizer = Standardizer.fit(values)
        >>> standardizer.transform(values)
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def fit(
        cls,
        values: Tensor,
        *,
        what: str = "values",
        names: Sequence[str] | None = None,
        allow_constant: bool = True,
    ) -> Standardizer:
        """Take the statistics of the rows given, which should be the training rows.

        Args:
            values: The rows, `(rows, columns)`.
            what: What an error should call them.
            names: A name per column, for errors.
            allow_constant: Whether a constant column gets scale 1 or is refused.

        Returns:
            The standardizer.

        Raises:
            InputError: If there are no rows, a value is not finite, or a column is constant and
                must not be.
        """
        if values.dim() != 2 or not len(values):
            raise InputError(
                what,
                expected="at least one row in a tensor (rows, columns)",
                got=f"shape {tuple(values.shape)}",
                hint="values[:, None] for a single column",
            )
        names = names or [str(column) for column in range(values.shape[1])]
        require_finite(what, values, names)
        if not allow_constant:
            require_varying(what, values, names)
        exact = values.double()  # (rows, columns)
        constant = values.amin(0) == values.amax(0)
        mean = torch.where(constant, exact[0], exact.mean(0))
        scale = torch.where(constant, torch.ones_like(mean), exact.std(0, correction=0))
        return cls(mean.to(values.dtype), scale.to(values.dtype))

    def transform(self, values: Tensor) -> Tensor:
        """Bring values to standard units.

        Args:
            values: Values in their own units, `(..., columns)`.

        Returns:
            Values in standard units, `(..., columns)`.

        Raises:
            InputError: If the number of columns is another one.
        """
        self._require_columns(values)
        return (values - self.mean) / self.scale

    def inverse(self, values: Tensor) -> Tensor:
        """Bring values back to their own units.

        Args:
            values: Values in standard units, `(..., columns)`.

        Returns:
            Values in their own units, `(..., columns)`.

        Raises:
            InputError: If the number of columns is another one.
        """
        self._require_columns(values)
        return values * self.scale + self.mean

    def _require_columns(self, values: Tensor) -> None:
        if values.shape[-1:] != self.mean.shape:
            raise InputError(
                "values to standardise",
                expected=f"{len(self.mean)} columns, as fitted",
                got=f"shape {tuple(values.shape)}",
                hint="pass the columns in the order of the fit",
            )


@dataclass(frozen=True, eq=False)
class StandardizedSplit(Split):
    """A split in standard units, with the way back.

    Args:
        train: Rows to fit on, in standard units.
        validation: Rows to choose by, in standard units, or None.
        test: Rows to report on, in standard units.
        features: How the features were standardised.
        target: How the target was standardised.

    Example:
        >>> from pyro_vdn.datasets import load_uci, uci_split
        >>> split = standardize(uci_split(load_uci("energy"), 0))
        >>> abs(split.train.target.mean().item()) < 1e-5
        True
    """

    features: Standardizer
    target: Standardizer


def standardize(split: Split) -> StandardizedSplit:
    """Standardise features and target of a split with its training rows.

    Args:
        split: The split, in its own units.

    Returns:
        The split in standard units.

    Raises:
        InputError: If the target is constant in the training rows.

    Example:
        >>> from pyro_vdn.datasets import load_uci, uci_split
        >>> scaled = standardize(uci_split(load_uci("energy"), 0))
        >>> bool(scaled.train.target.mean().abs() < 1e-4)
        True
        >>> heating_load = scaled.target.inverse(scaled.test.target)  # (77, 1)
    """
    train = split.train
    features = Standardizer.fit(
        train.features, what=f"features of {train.name!r}", names=train.feature_names
    )
    target = Standardizer.fit(
        train.target,
        what=f"target of {train.name!r}",
        names=(train.target_name,),
        allow_constant=False,
    )

    def scale(table: Table) -> Table:
        return table.replace(features.transform(table.features), target.transform(table.target))

    return StandardizedSplit(
        train=scale(train),
        validation=None if split.validation is None else scale(split.validation),
        test=scale(split.test),
        features=features,
        target=target,
    )
