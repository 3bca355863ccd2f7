"""A page that colours every token of a text by how unsure the model was of it."""

from __future__ import annotations

from collections.abc import Sequence

from pyro_vdn.infer import TokenReading
from pyro_vdn.nn.shapes import check_choice
from pyro_vdn.report.document import document, themes
from pyro_vdn.report.markup import tag
from pyro_vdn.report.token_map import (
    LEVEL_RULES,
    MAP_STYLE,
    MEANING,
    SCORES,
    summary,
    token_map,
)


def token_page(
    reading: TokenReading,
    pieces: Sequence[str],
    *,
    by: str = "mutual_information",
    title: str = "Tokens",
    num_given: int = 0,
) -> str:
    """Return a page of HTML that shows a text with its tokens coloured by a score.

    The page is one file without scripts that loads nothing; it follows the reader's choice of
    light or dark. A token's numbers show when it is pointed at or tapped. Text is shown as text,
    whatever it holds.

    Args:
        reading: The tokens and their scores.
        pieces: What each token stands for, as many as there are tokens.
        by: A key of `SCORES`.
        title: Heading of the page.
        num_given: How many tokens, from the first, were given rather than drawn; they are
            underlined, unless all were.

    Returns:
        The page.

    Raises:
        InputError: For an unknown score, or another number of pieces than of tokens.

    Example:
        >>> import math, torch
        >>> reading = TokenReading(torch.tensor([1, 0]), *torch.tensor([[math.nan, 0.5]] * 4))
        >>> page = token_page(reading, ["<", "b"])
        >>> "&lt;" in page, "<script" in page
        (True, False)
    """
    check_choice("by", by, tuple(SCORES))
    scale, text = token_map(reading, pieces, by=by, num_given=num_given)
    some_given = 0 < num_given < len(pieces)
    drawn = " Underlined: the text that was given." if some_given else ""
    return document(
        title,
        _STYLE + MAP_STYLE + themes(**LEVEL_RULES),
        tag("h1", title),
        tag("p", f"Colour: {SCORES[by]}, {MEANING[by]}.{drawn}"),
        scale,
        tag("p", f"{summary(reading)}."),
        tag("main", text),
    )


_STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:46rem;padding:1rem 1rem 5rem;background:var(--paper);
color:var(--ink);font:1rem/1.6 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.25rem;line-height:1.3;margin:.5rem 0}
p{margin:.5rem 0;color:var(--muted)}
"""
