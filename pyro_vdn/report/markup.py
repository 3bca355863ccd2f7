"""HTML made of parts: text is escaped here and nowhere else, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import NamedTuple, TypeAlias

_VOID = ("img", "input", "link", "meta")


class Markup(NamedTuple):
    """HTML that was made by `tag`; a plain string is never taken for it.

    Args:
        html: The HTML.

    Example:
        >>> tag("b", Markup("<i></i>"), "<i>").html
        '<b><i></i>&lt;i&gt;</b>'
    """

    html: str


Content: TypeAlias = str | Markup
"""What an element may hold: text, which is escaped, or elements."""


def tag(element: str, /, *content: Content, **attributes: str | bool | None) -> Markup:
    """Return an element with its content and attributes escaped.

    Args:
        element: Name of the element.
        content: Texts and elements, in order.
        attributes: Values by name, of which `_` at the end is dropped and others become `-`; True
            for an attribute without a value, None or False for none.

    Returns:
        The element.

    Example:
        >>> tag("td", "a < b", class_="number", aria_label='"').html
        '<td class="number" aria-label="&quot;">a &lt; b</td>'
        >>> tag("img", alt=None, hidden=True).html
        '<img hidden>'
    """
    opened = f"<{element}{''.join(_attribute(*item) for item in attributes.items())}>"
    if element in _VOID:
        return Markup(opened)
    return Markup(f"{opened}{together(*content).html}</{element}>")


def together(*content: Content) -> Markup:
    """Return contents one after another, texts escaped.

    Args:
        content: Texts and elements.

    Returns:
        All of them as one.

    Example:
        >>> together("1 < 2, ", tag("b", "x")).html
        '1 &lt; 2, <b>x</b>'
    """
    return Markup("".join(_html(part) for part in content))


def joined(separator: Content, content: Iterable[Content]) -> Markup:
    """Return contents with something between them.

    Args:
        separator: What stands between.
        content: Texts and elements.

    Returns:
        All of them as one.

    Example:
        >>> joined(", ", ["a", "b"]).html
        'a, b'
    """
    between = together(separator).html
    return Markup(between.join(together(part).html for part in content))


def _html(part: Content) -> str:
    if isinstance(part, Markup):
        return part.html
    return escape(part) if part.isprintable() else "".join(map(_visible, part))


def _visible(character: str) -> str:
    """Escape a character, and spell it where browsers show nothing or change their direction."""
    if character in "\n\t\u00a0" or character.isprintable():
        return escape(character)
    return escape(ascii(character)[1:-1])


def _attribute(name: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{_html(value)}"'
