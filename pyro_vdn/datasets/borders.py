"""Where in time the training, validation and test parts of a series lie."""

from __future__ import annotations

from typing import NamedTuple

from pyro_vdn.errors import InputError


class Borders(NamedTuple):
    """The ends of the three parts; each part begins where the one before it ends.

    Args:
        train: One past the last training row; the first is row 0.
        validation: One past the last validation row.
        test: One past the last test row.

    Example:
        >>> Borders(70, 80, 100).parts()
        ((0, 70), (70, 80), (80, 100))
    """

    train: int
    validation: int
    test: int

    def parts(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Give the first row of each part and one past its last row.

        Returns:
            A pair for training, validation and test.
        """
        return (0, self.train), (self.train, self.validation), (self.validation, self.test)


_MONTH = 30 * 24
ETT_HOURLY = Borders(12 * _MONTH, 16 * _MONTH, 20 * _MONTH)


def percent_borders(num_rows: int) -> Borders:
    """Divide a series into 70 % training, 10 % validation and 20 % test rows.

    Training and test rows are rounded down, validation takes the rest, as the published
    forecasting benchmarks do.

    Args:
        num_rows: The length of the series.

    Returns:
        The borders.

    Example:
        >>> percent_borders(7588)
        Borders(train=5311, validation=6071, test=7588)
    """
    return Borders(num_rows * 7 // 10, num_rows - num_rows * 2 // 10, num_rows)


def require_borders(borders: Borders, num_rows: int) -> None:
    """Refuse borders that are out of order or past the end.

    Args:
        borders: The borders.
        num_rows: The length of the series.

    Raises:
        InputError: If they are not increasing within the series.

    Example:
        >>> require_borders(Borders(70, 80, 100), 100)
    """
    if not 0 < borders.train < borders.validation < borders.test <= num_rows:
        raise InputError(
            "borders",
            expected=f"0 < train < validation < test <= {num_rows} rows",
            got=str(tuple(borders)),
            hint="a longer series, or Borders(train=..., validation=..., test=...)",
        )
