"""A page that colours every token of a text by how unsure the model was of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenReading
from pyro_vdn.nn.shapes import check_choice
from pyro_vdn.report.colours import DARK, LEVELS, LIGHT, Theme, css, scale

SCORES = {
    "mutual_information": "mutual information",
    "entropy": "entropy",
    "kl": "KL of the neurons",
}
"""What tokens may be coloured by, and what a page calls it. All are in nats."""

_MEANING = {
    "mutual_information": "how much the draws of the neurons disagree about the token",
    "entropy": "how unsure the averaged prediction is, whatever the reason",
    "kl": "how far the neurons that predicted the token went from their prior",
}
_HIGHEST = 0.98


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
        >>> reading = TokenReading(torch.tensor([1, 0]), *torch.tensor([[math.nan, 0.5]] * 4))
        >>> page = token_page(reading, ["<", "b"])
        >>> "&lt;" in page, "<script" in page
        (True, False)
    """
    check_choice("by", by, tuple(SCORES))
    if len(pieces) != len(reading.tokens):
        raise InputError(
            "pieces",
            expected=f"one for each of the {len(reading.tokens)} tokens",
            got=f"{len(pieces)}",
            hint="[tokenizer.token(int(token)) for token in reading.tokens]",
        )
    values: Tensor = getattr(reading, by)
    low, high = _ends(values)
    all_given = num_given >= len(pieces)
    spans = [
        _token(piece, _level(float(values[place]), low, high), _tip(reading, place, piece), given)
        for place, piece in enumerate(pieces)
        for given in [place < num_given and not all_given]
    ]
    drawn = "" if all_given or num_given == 0 else " Underlined: the text that was given."
    return _PAGE.format(
        title=escape(title),
        style=_STYLE,
        light=_theme(LIGHT),
        dark=_theme(DARK),
        score=escape(SCORES[by]),
        meaning=escape(_MEANING[by] + "." + drawn),
        swatches="".join(f'<i class="h{level}"></i>' for level in range(LEVELS)),
        low=f"{_nats(low)} nats",
        high=f"{_nats(high)} nats{' or more' if high < float(_finite(values).max()) else ''}",
        summary=escape(_summary(reading)),
        text="".join(spans),
    )


def _finite(values: Tensor) -> Tensor:
    finite = values[torch.isfinite(values)].double()
    return finite if len(finite) else finite.new_zeros(1)


def _ends(values: Tensor) -> tuple[float, float]:
    """Return where the scale begins and ends: a few extreme tokens shall not bleach the others."""
    finite = _finite(values)
    return float(finite.min()), float(finite.quantile(_HIGHEST, interpolation="higher"))


def _level(value: float, low: float, high: float) -> int | None:
    if not math.isfinite(value):
        return None
    share = (value - low) / (high - low) if high > low else 0.0
    return round(min(max(share, 0.0), 1.0) * (LEVELS - 1))


def _token(piece: str, level: int | None, tip: str, given: bool) -> str:
    shown = "".join(_visible(character) for character in piece)
    names = ["t", "no" if level is None else f"h{level}"]
    names += ["given"] if given else []
    names += ["end"] if "\n" in piece else []
    return f'<span class="{" ".join(names)}" tabindex="-1" title="{escape(tip)}">{shown}</span>'


def _visible(character: str) -> str:
    """Escape a character, and spell it where browsers show nothing or change their direction."""
    if character in "\n\t" or character.isprintable():
        return escape(character)
    return escape(ascii(character)[1:-1])


def _tip(reading: TokenReading, place: int, piece: str) -> str:
    name = repr(piece) if len(piece) < 40 else repr(piece[:40] + "…")
    if not math.isfinite(float(reading.nll[place])):
        return f"{name}: nothing before it to predict it from"
    numbers = [
        f"{label} {_nats(float(getattr(reading, key)[place]))} nats"
        for key, label in SCORES.items()
    ]
    chance = math.exp(-float(reading.nll[place]))
    return f"{name}: probability {100 * chance:.3g} %, {', '.join(numbers)}"


def _summary(reading: TokenReading) -> str:
    count = len(reading.tokens)
    parts = [f"{count:,} token{'s' if count > 1 else ''}"]
    named = {"nll": "-log p", **SCORES}
    if torch.isfinite(reading.nll).any():
        parts += [
            f"{label} {_nats(float(_finite(getattr(reading, key)).mean()))}"
            for key, label in named.items()
        ]
        return "; mean per token, in nats: ".join((parts[0], ", ".join(parts[1:])))
    return parts[0]


def _nats(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


def _theme(theme: Theme) -> str:
    """Return the variables and levels of a theme as style rules."""
    names = {"paper": theme.paper, "ink": theme.ink, "muted": theme.muted}
    variables = "".join(f"--{name}:{css(colour)};" for name, colour in names.items())
    levels = "".join(
        f".h{level}{{background:{css(colour)}}}" for level, colour in enumerate(scale(theme))
    )
    return f":root{{{variables}}}{levels}"


_STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:46rem;padding:1rem 1rem 5rem;background:var(--paper);
color:var(--ink);font:1rem/1.6 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.25rem;line-height:1.3;margin:.5rem 0}
p{margin:.5rem 0;color:var(--muted)}
.scale{display:flex;flex-wrap:wrap;align-items:center;gap:.25rem .5rem;margin:.75rem 0}
.bar{display:flex;flex:0 1 12rem;min-width:6rem;border:1px solid var(--muted)}
.bar i{flex:1;height:1rem}
.text{margin:1rem 0;padding-top:1rem;border-top:1px solid var(--muted);white-space:pre-wrap;
font:1rem/1.9 ui-monospace,Menlo,Consolas,monospace}
.t{padding:.15em 0;color:var(--ink)}
.no{outline:1px dashed var(--muted);outline-offset:-1px}
.given{text-decoration:underline dotted;text-underline-offset:.25em}
.end::before{content:"\\21b5";opacity:.6}
.t:focus{outline:2px solid var(--ink)}
.t:hover::after,.t:focus::after{content:attr(title);position:fixed;left:0;right:0;bottom:0;
padding:.6rem 1rem;background:var(--ink);color:var(--paper);font:.9rem/1.4 system-ui,sans-serif;
white-space:normal;overflow-wrap:anywhere}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}{light}@media (prefers-color-scheme:dark){{{dark}}}</style>
</head>
<body>
<h1>{title}</h1>
<p>Colour: {score}, {meaning}</p>
<div class="scale"><span>{low}</span><span class="bar">{swatches}</span><span>{high}</span></div>
<p>{summary}.</p>
<main class="text">{text}</main>
</body>
</html>
"""
