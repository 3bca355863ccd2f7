"""A whole page of HTML: one file that loads nothing and runs nothing."""

from __future__ import annotations

import base64
import hashlib

from pyro_vdn.report.colours import DARK, LIGHT, Theme, css
from pyro_vdn.report.markup import Content, Markup, tag, together


def document(title: str, style: str, *content: Content) -> str:
    """Return a page that browsers keep from loading or running anything.

    Its policy allows one style sheet, known by its checksum, and pictures inside the page.

    Args:
        title: Title of the page.
        style: Rules of its style sheet; text of this library alone, since it is not escaped.
        content: What the body holds.

    Returns:
        The page.

    Example:
        >>> page = document("a < b", "p{margin:0}", tag("p", "<script>"))
        >>> "<title>a &lt; b</title>" in page, "<script" in page
        (True, False)

    Source:
        W3C, *Content Security Policy Level 3*.
    """
    checksum = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{checksum}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    page = tag("html", head, tag("body", *content), lang="en")
    return together(Markup("<!doctype html>\n"), page, "\n").html


def themes(light: str = "", dark: str = "") -> str:
    """Return style rules that name the colours of both themes.

    Args:
        light: Further rules where the reader prefers light.
        dark: Further rules where the reader prefers dark.

    Returns:
        Rules with the variables `--paper`, `--ink`, `--muted` and `--strong`.

    Example:
        >>> "prefers-color-scheme:dark" in themes()
        True
    """
    return (
        f"{_variables(LIGHT)}{light}@media (prefers-color-scheme:dark){{{_variables(DARK)}{dark}}}"
    )


def _variables(theme: Theme) -> str:
    names = {
        "paper": theme.paper,
        "ink": theme.ink,
        "muted": theme.muted,
        "strong": theme.strongest,
    }
    return ":root{" + "".join(f"--{name}:{css(colour)};" for name, colour in names.items()) + "}"
