"""The look of every figure, its creation without global state, and saving."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_vdn.diagnostics._files import replacing
from pyro_vdn.errors import InputError, VDNError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK = "#22313f"
"""Text, axes and observed values."""
MUTED = "#7b8794"
"""References, thresholds, collapsed units."""
GRID = "#e4e7eb"
ACCENT = "#1f6f8b"
"""What the model says."""
BAND_WIDE = "#cfe3ea"
BAND_NARROW = "#93c1d0"
WARM = "#c8553d"
"""The truth, where it must stand out from the model."""

WIDTH = 12.0
"""Inches; 1200 px at 100 dots per inch."""


class MissingPackageError(VDNError, ImportError):
    """An optional package is needed for what was asked."""


def new_figure(height: float) -> Figure:
    """Create a figure of standard width and `height` inches that no global state knows."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingPackageError(
            "matplotlib is needed for figures. Try: pip install 'pyro-vdn[notebooks]'"
        ) from error
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.04, hspace=0.04)
    figure = Figure(figsize=(WIDTH, height), dpi=100, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Give axes the house look: two spines, a light grid behind the data, quiet ticks."""
    axes.set_facecolor("white")
    # Names of columns may hold dollar signs, which are no formulas.
    axes.set_title(title, loc="left", fontsize=12, color=INK, pad=8, parse_math=False)
    axes.set_xlabel(x, fontsize=11, color=INK, parse_math=False)
    axes.set_ylabel(y, fontsize=11, color=INK, parse_math=False)
    axes.tick_params(which="both", labelsize=10, colors=INK, length=3, color=MUTED)
    axes.tick_params(which="minor", length=0)
    axes.grid(visible=True, which="major", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)


def plain(name: object) -> str:
    r"""Return a name as the label of a tick or of a line that shows it letter by letter.

    Matplotlib reads what stands between dollar signs as a formula, which may not parse, and keeps
    labels with a leading underscore out of legends. Titles and axes' labels, which `style` sets,
    take names as they are.

    Args:
        name: Given by a user, such as that of a column, a group or a curve.

    Example:
        >>> print(plain("a$b$c"), plain("_d"))
        a\$b\$c  _d
    """
    text = str(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def whole_numbers(axis: Axis) -> None:
    """Put ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def legend(axes: Axes, **where: Any) -> None:
    """Add a legend whose white ground hides the grid lines behind its text."""
    drawn = axes.legend(
        fontsize=10, frameon=True, facecolor="white", edgecolor="none", labelcolor=INK, **where
    )
    drawn.get_frame().set_alpha(0.9)


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: int = 150) -> None:
    """Write a figure to a file, whole or not at all.

    Args:
        figure: What a plot function of this package returned.
        path: File to write; the ending (`.png`, `.svg`, `.pdf`) chooses the format. Its folder must
            exist.
        dpi: Dots per inch of a bitmap.

    Raises:
        InputError: If the folder does not exist or the ending names no known format.

    Example:
        >>> import tempfile
        >>> figure = new_figure(4.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(figure, f"{folder}/empty.png")
        ...     Path(f"{folder}/empty.png").stat().st_size > 0
        True
    """
    ending = Path(path).suffix.lstrip(".").lower()
    formats = sorted(figure.canvas.get_supported_filetypes())
    if ending not in formats:
        raise InputError(
            "path",
            expected=f"an ending among {', '.join(formats)}",
            got=f"'{os.fspath(path)}'",
            hint="write for example forecast.png",
        )
    with replacing(path) as temporary:
        figure.savefig(temporary, format=ending, dpi=dpi, facecolor="white")
