"""Escaping, in the one place where it is done."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape

import pytest

from pyro_vdn.report.document import document
from pyro_vdn.report.markup import Markup, joined, tag, together

HOSTILE = '</td><script>alert("1")</script>\'&\x00\u202e'


def test_text_is_escaped_wherever_it_stands() -> None:
    made = tag("td", HOSTILE, title=HOSTILE, class_="a b").html
    inside = re.fullmatch(r'<td title="([^"<>]*)" class="a b">([^<>]*)</td>', made)
    assert inside is not None
    for part in inside.groups():
        assert unescape(part) == HOSTILE.replace("\x00", r"\x00").replace("\u202e", r"\u202e")


def test_spaces_that_do_not_break_are_shown() -> None:
    assert tag("p", "90\u00a0%").html == "<p>90\u00a0%</p>"


def test_markup_is_kept_and_text_is_never_taken_for_it() -> None:
    inner = tag("b", "<")
    assert together(inner, inner.html).html == "<b>&lt;</b>&lt;b&gt;&amp;lt;&lt;/b&gt;"
    assert joined(tag("i"), ["<", inner]).html == "&lt;<i></i><b>&lt;</b>"


@pytest.mark.parametrize(
    ("value", "written"), [(True, " hidden"), (False, ""), (None, ""), ("", ' hidden=""')]
)
def test_attributes(value: str | bool | None, written: str) -> None:
    assert tag("p", hidden=value).html == f"<p{written}></p>"
    assert tag("meta", http_equiv="a").html == '<meta http-equiv="a">'


def test_a_document_allows_its_own_style_alone() -> None:
    style = 'p::before{content:"\\21b5"}'
    page = document(HOSTILE, style, tag("p", HOSTILE))
    checksum = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{checksum}'" in unescape(page)
    assert f"<style>{style}</style>" in page
    assert "<script" not in page
    assert page.index("Content-Security-Policy") < page.index("<style>")
    assert document("a", style, Markup("<p></p>")).count("<p></p>") == 1
