"""Text as bytes in UTF-8, and bytes as something to show."""

from __future__ import annotations

from pyro_vdn.errors import InputError


def utf8(text: str) -> bytes:
    r"""Write a text in UTF-8.

    Args:
        text: The text.

    Returns:
        Its bytes.

    Raises:
        InputError: If it holds half a surrogate pair.

    Example:
        >>> utf8("é")
        b'\xc3\xa9'
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "text",
            expected="characters that UTF-8 can write",
            got=f"U+{ord(text[error.start]):04X} at character {error.start}, half a surrogate pair",
            hint="text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')",
        ) from error


def shown(content: bytes) -> str:
    r"""Write bytes as text where they are UTF-8, else as escapes.

    Args:
        content: The bytes.

    Returns:
        What to show.

    Example:
        >>> shown(b" the"), shown(b"\xc3")
        (' the', '\\xc3')
    """
    return content.decode("utf-8", "backslashreplace")
