"""The blocks that a report is built of: sections, tables, pictures, lists."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_vdn.report.markup import Content, Markup, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 140
_COLOURS = 128


def section(anchor: str, heading: str, *content: Content) -> Markup:
    """Return a section whose heading is a link to itself.

    Args:
        anchor: Its name in links.
        heading: Its heading.
        content: What it holds.

    Example:
        >>> section("a", "A").html
        '<section id="a"><h2><a href="#a">A</a></h2></section>'
    """
    return tag("section", tag("h2", tag("a", heading, href=f"#{anchor}")), *content, id=anchor)


def paragraph(*content: Content) -> Markup:
    """Return a paragraph.

    Args:
        content: What it holds.
    """
    return tag("p", *(tight(part) if isinstance(part, str) else part for part in content))


def tight(text: str) -> str:
    """Keep percent signs and plus-minus signs on the line of their numbers.

    Args:
        text: A sentence.

    Example:
        >>> len(tight("90 %").split(" "))
        1
    """
    return text.replace(" %", "\u00a0%").replace("± ", "±\u00a0")


def table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Content]],
    *,
    texts: bool = False,
) -> Markup:
    """Return a table whose first column names the rows; a wide one scrolls in its own box.

    Args:
        caption: What it shows, with units.
        head: Heading of every column.
        rows: Cells, row by row.
        texts: Whether cells hold words, which break into lines, rather than numbers.

    Example:
        >>> "&lt;a&gt;</th><td>1</td>" in table("c", ["x", "y"], [["<a>", "1"]]).html
        True
    """
    titles = tag("tr", *(tag("th", name, scope="col") for name in head))
    lines = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell) for cell in row[1:]),
        )
        for row in rows
    ]
    drawn = tag("table", tag("thead", titles), tag("tbody", *lines), aria_label=caption)
    box = tag("div", drawn, class_="wide", tabindex="0", role="region", aria_label=caption)
    return tag(
        "figure", tag("figcaption", tight(caption)), box, class_="texts" if texts else "numbers"
    )


def picture(figure: Figure, *, alt: str, caption: str = "") -> Markup:
    """Return a figure as a picture inside the page, which a click or a tap enlarges.

    Args:
        figure: What a plot function returned.
        alt: What is seen, in words.
        caption: What stands below it.

    Returns:
        The picture, as wide as the page; enlarged, it scrolls in its own box.
    """
    data = base64.b64encode(_png(figure)).decode()
    width, height = (round(inches * 100) for inches in figure.get_size_inches())
    image = tag(
        "img",
        src=f"data:image/png;base64,{data}",
        alt=alt,
        width=str(width),
        height=str(height),
    )
    enlarge = tag("input", type="checkbox", aria_label=f"Enlarge: {alt}")
    below = (tag("figcaption", tight(caption)),) if caption else ()
    return tag("figure", tag("label", enlarge, tag("span", image, class_="picture")), *below)


def bullets(items: Sequence[Content], *, class_: str | None = None) -> Markup:
    """Return a list.

    Args:
        items: Its items.
        class_: Name of its look.

    Example:
        >>> bullets(["a", "b"]).html
        '<ul><li>a</li><li>b</li></ul>'
    """
    return tag("ul", *(tag("li", item) for item in items), class_=class_)


def contents(sections: Sequence[tuple[str, str]]) -> Markup:
    """Return links to sections.

    Args:
        sections: Anchors and headings.

    Example:
        >>> contents([("a", "A")]).html
        '<nav aria-label="Contents"><a href="#a">A</a></nav>'
    """
    links = [tag("a", heading, href=f"#{anchor}") for anchor, heading in sections]
    return tag("nav", *links, aria_label="Contents")


def _png(figure: Figure) -> bytes:
    """Draw a figure with a palette: a third of the size of full colour, and no eye sees it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(_DPI)
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    made = BytesIO()
    canvas.draw()  # savefig would lay the figure out twice
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(_COLOURS).save(made, format="png")
    return made.getvalue()
