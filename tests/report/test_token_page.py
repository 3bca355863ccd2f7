"""The page of coloured tokens, as text and in a real browser."""

from __future__ import annotations

import math
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_vdn.errors import InputError
from pyro_vdn.infer import TokenReading
from pyro_vdn.report import SCORES, token_page
from pyro_vdn.report.colours import DARK, LEVELS, LIGHT, contrast, scale

PROMPT = "<script>alert(1)</script>"


def reading(count: int) -> TokenReading:
    """Return scores that rise from token to token, the first of them missing."""
    rising = torch.linspace(0, 1, count)
    rising[0] = math.nan
    return TokenReading(torch.arange(count), rising, 3 * rising, rising.square(), 100 + rising)


def page(text: str = PROMPT, **rest: Any) -> str:
    return token_page(reading(len(text)), list(text), **{"num_given": 3, **rest})


def levels(made: str) -> list[str]:
    return [names.split()[1] for names in re.findall(r'<span class="(t [^"]*)"', made)]


def test_tokens_are_coloured_by_the_score() -> None:
    text = "x" * 101
    by_entropy = levels(page(text, by="entropy"))
    assert by_entropy[0] == "no"
    assert by_entropy[1] == "h0"
    assert by_entropy[-1] == f"h{LEVELS - 1}"
    assert by_entropy == sorted(by_entropy, key=lambda name: (name != "no", name))
    information = levels(page(text))
    assert information != by_entropy  # squares: low ones are more frequent
    assert information.count("h0") > by_entropy.count("h0")


def test_a_few_extreme_tokens_do_not_bleach_the_others() -> None:
    scores = torch.linspace(0, 1, 100)
    scores[-1] = 1000.0
    extreme = TokenReading(torch.arange(100), scores, scores, scores, scores)
    made = token_page(extreme, ["x"] * 100)
    assert len(set(levels(made))) == LEVELS
    assert "nats or more" in made
    assert "nats or more" not in page("xxx", by="kl")


def test_equal_scores_are_all_low() -> None:
    same = TokenReading(torch.arange(4), *torch.full((4, 4), 2.0))
    assert levels(token_page(same, list("abcd"))) == ["h0"] * 4
    none = TokenReading(torch.arange(1), *torch.full((4, 1), math.nan))
    assert levels(token_page(none, ["a"])) == ["no"]


@pytest.mark.parametrize("by", list(SCORES))
def test_the_legend_says_what_and_how_much(by: str) -> None:
    made = page("abc", by=by)
    finite = getattr(reading(3), by)[1:]
    assert f"Colour: {SCORES[by]}" in made
    assert f"<span>{float(finite.min()):.4g} nats</span>" in made
    assert f"<span>{float(finite.max()):.4g} nats</span>" in made


def test_every_token_says_its_numbers() -> None:
    tips = [unescape(tip) for tip in re.findall(r'title="([^"]*)"', page("a\nb"))]
    assert tips[0] == "'a': nothing before it to predict it from"
    assert tips[1] == (
        r"'\n': probability 60.7 %, mutual information 0.25 nats, entropy 1.5 nats, "
        "KL of the neurons 100.5 nats"
    )


def test_text_is_escaped_everywhere() -> None:
    made = page(PROMPT + "\"'&\x00\u202e", title='<b title="x">')
    for piece in ("<script", "alert(1)", '"x"', "<b ", "\x00", "\u202e"):
        assert piece not in made
    assert "&lt;" in made
    assert r"\x00" in made
    assert r"\u202e" in made
    whole = token_page(reading(2), [PROMPT, PROMPT])
    assert PROMPT not in whole
    assert unescape(whole).count(PROMPT) == 4  # as text and as a tip, twice


def test_nothing_is_loaded_and_no_script_is_there() -> None:
    made = page()
    assert "default-src 'none'" in unescape(made)
    assert not re.search(r"https?:|<script|src=|@import|url\(", made)


def test_given_tokens_are_marked_unless_all_were() -> None:
    assert page("abcde").count("given") == 3 + 2  # three tokens, one rule, one sentence
    assert "Underlined" in page("abcde")
    assert "Underlined" not in page("abcde", num_given=5)
    assert 'given"' not in page("abcde", num_given=5)


def test_the_text_can_be_read_on_every_colour() -> None:
    for theme in (LIGHT, DARK):
        assert contrast(theme.ink, theme.paper) > 7
        assert contrast(theme.muted, theme.paper) > 4.5
        assert min(contrast(theme.ink, colour) for colour in scale(theme)) > 4.5


def test_pages_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(InputError, match=r"by: expected one of \('mutual_information'"):
        page(by="surprise")
    with pytest.raises(InputError, match="pieces: expected one for each of the 3 tokens, got 2"):
        token_page(reading(3), ["a", "b"])


def test_the_page_in_a_browser(
    browser_page: Any, complaints: list[str], colour: Any, tmp_path: Path
) -> None:
    text = f"{PROMPT} and a text\n" + 40 * "longword" + " the end"
    (tmp_path / "page.html").write_text(page(text, num_given=len(PROMPT)), encoding="utf-8")
    shown = browser_page
    shown.goto((tmp_path / "page.html").as_uri())
    assert shown.locator("main").inner_text().startswith(PROMPT)
    assert shown.evaluate("document.scripts.length") == 0
    assert shown.locator("main .t").count() == len(text)
    low, high = shown.locator("main .h0").first, shown.locator(f"main .h{LEVELS - 1}").last
    for scheme, width, theme in (("light", 1200, LIGHT), ("dark", 390, DARK)):
        shown.emulate_media(color_scheme=scheme)
        shown.set_viewport_size({"width": width, "height": 800})
        colours = [colour(one, "backgroundColor") for one in (low, high)]
        assert colours == [scale(theme)[0], scale(theme)[-1]]
        assert contrast(colour(high, "color"), colours[1]) >= 4.5
        assert colour(shown.locator("body"), "backgroundColor") == theme.paper
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        high.click()  # a tap shows the numbers, within the screen
        assert "probability" in high.evaluate("e => getComputedStyle(e, '::after').content")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
