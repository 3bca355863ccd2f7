"""A regression table, and a split of its rows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyro_vdn.datasets.checks import require_finite
from pyro_vdn.errors import InputError


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of features with one target each.

    Args:
        features: The features, `(rows, num_features)`.
        target: The target, `(rows, 1)`.
        feature_names: A name per feature.
        name: The name of the table.
        target_name: The name of the target.

    Raises:
        InputError: If the shapes do not agree or a value is not finite.

    Example:
        >>> import torch
        >>> table = Table(torch.randn(5, 2), torch.randn(5, 1), ("a", "b"), "mine")
        >>> len(table), len(table.select(torch.tensor([0, 3])))
        (5, 2)
    """

    features: Tensor
    target: Tensor
    feature_names: tuple[str, ...]
    name: str
    target_name: str = "target"

    def __post_init__(self) -> None:
        """Check shapes and values."""
        expected = (len(self.features), len(self.feature_names), len(self.features), 1)
        if (*self.features.shape, *self.target.shape) != expected:
            raise InputError(
                f"table {self.name!r}",
                expected=f"features (rows, {len(self.feature_names)}) and target (rows, 1)",
                got=f"{tuple(self.features.shape)} and {tuple(self.target.shape)}",
                hint="target[:, None] for a target of one dimension; a name per feature",
            )
        require_finite(f"features of {self.name!r}", self.features, self.feature_names)
        require_finite(f"target of {self.name!r}", self.target, (self.target_name,))

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.features)

    def select(self, rows: Tensor) -> Table:
        """Take some rows.

        Args:
            rows: Row indices, `(num_selected,)`.

        Returns:
            A table with those rows, in that order.
        """
        return self.replace(self.features[rows], self.target[rows])

    def replace(self, features: Tensor, target: Tensor) -> Table:
        """Put other values under the same names.

        Args:
            features: The new features, `(rows, num_features)`.
            target: The new target, `(rows, 1)`.

        Returns:
            The new table.
        """
        return Table(features, target, self.feature_names, self.name, self.target_name)


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of a table, divided.

    Args:
        train: Rows to fit on.
        validation: Rows to choose by, or None if none were held out.
        test: Rows to report on.

    Example:
        >>> from pyro_vdn.datasets import load_uci, uci_split
        >>> split = uci_split(load_uci("energy"), 0, validation=0.1)
        >>> len(split.train), len(split.validation), len(split.test)
        (622, 69, 77)
    """

    train: Table
    validation: Table | None
    test: Table
