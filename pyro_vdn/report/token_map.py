"""A text whose tokens are coloured by a score, with the scale beside it: a part of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenReading
from pyro_vdn.nn.shapes import check_choice
from pyro_vdn.report.colours import DARK, LEVELS, LIGHT, Theme, css, scale
from pyro_vdn.report.markup import Markup, tag

SCORES = {
    "mutual_information": "mutual information",
    "entropy": "entropy",
    "kl": "KL of the neurons",
}
"""What a page of tokens may be coloured by, and what it calls it. All are in nats."""

NAMES = {"nll": "surprise", **SCORES}
"""What a map may be coloured by: these scores, and how little the token was expected."""

MEANING = {
    "nll": "minus the log of the probability that the token was given",
    "mutual_information": "how much the draws of the neurons disagree about the token",
    "entropy": "how unsure the averaged prediction is, whatever the reason",
    "kl": "how far the neurons that predicted the token went from their prior",
}
"""What each of them is, in words."""

_HIGHEST = 0.98


def token_map(
    reading: TokenReading, pieces: Sequence[str], *, by: str, num_given: int = 0
) -> tuple[Markup, Markup]:
    """Return the scale of a score, and a text with its tokens coloured by it.

    A token's numbers show when it is pointed at or tapped. Text is shown as text, whatever it
    holds.

    Args:
        reading: The tokens and their scores.
        pieces: What each token stands for, as many as there are tokens.
        by: A key of `NAMES`.
        num_given: How many tokens, from the first, were given rather than drawn; they are
            underlined, unless all were.

    Returns:
        The scale and the text.

    Raises:
        InputError: For an unknown score, or another number of pieces than of tokens.

    Example:
        >>> reading = TokenReading(torch.tensor([1, 0]), *torch.tensor([[math.nan, 0.5]] * 4))
        >>> bar, text = token_map(reading, ["<", "b"], by="nll")
        >>> "&lt;" in text.html, "0.5 nats" in bar.html
        (True, True)
    """
    check_choice("by", by, tuple(NAMES))
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
    more = " or more" if high < float(_finite(values).max()) else ""
    return _scale(f"{_nats(low)} nats", f"{_nats(high)} nats{more}"), tag(
        "div", *spans, class_="text"
    )


def summary(reading: TokenReading) -> str:
    """Return the number of tokens and their mean scores in words.

    Args:
        reading: The tokens and their scores.

    Example:
        >>> summary(TokenReading(torch.tensor([1]), *torch.full((4, 1), math.nan)))
        '1 token'
    """
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


def level_rules(theme: Theme) -> str:
    """Return style rules for the backgrounds of all levels of a theme.

    Args:
        theme: The colours.

    Example:
        >>> level_rules(LIGHT)[:25]
        '.h0{background:#ffffff}.h'
    """
    return "".join(
        f".h{level}{{background:{css(colour)}}}" for level, colour in enumerate(scale(theme))
    )


LEVEL_RULES = {"light": level_rules(LIGHT), "dark": level_rules(DARK)}
"""What `themes` is to be given so that a map has its colours."""


def _scale(low: str, high: str) -> Markup:
    swatches = [tag("i", class_=f"h{level}") for level in range(LEVELS)]
    bar = tag("span", *swatches, class_="bar")
    return tag("div", tag("span", low), bar, tag("span", high), class_="scale")


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


def _token(piece: str, level: int | None, tip: str, given: bool) -> Markup:
    names = ["t", "no" if level is None else f"h{level}"]
    names += ["given"] if given else []
    names += ["end"] if "\n" in piece else []
    return tag("span", piece, class_=" ".join(names), tabindex="-1", title=tip)


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


def _nats(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.1e}"


MAP_STYLE = """
.scale{display:flex;flex-wrap:wrap;align-items:center;gap:.25rem .5rem;margin:.75rem 0}
.bar{display:flex;flex:0 1 12rem;min-width:6rem;border:1px solid var(--muted)}
.bar i{flex:1;height:1rem}
.text{margin:1rem 0;padding-top:1rem;border-top:1px solid var(--muted);white-space:pre-wrap;
overflow-wrap:anywhere;font:1rem/1.9 ui-monospace,Menlo,Consolas,monospace}
.t{padding:.15em 0;color:var(--ink)}
.no{outline:1px dashed var(--muted);outline-offset:-1px}
.given{text-decoration:underline dotted;text-underline-offset:.25em}
.end::before{content:"\\21b5";opacity:.6}
.t:focus{outline:2px solid var(--ink)}
.t:hover::after,.t:focus::after{content:attr(title);position:fixed;left:0;right:0;bottom:0;
padding:.6rem 1rem;background:var(--ink);color:var(--paper);font:.9rem/1.4 system-ui,sans-serif;
white-space:normal;overflow-wrap:anywhere}
"""
"""Style rules of a map."""
