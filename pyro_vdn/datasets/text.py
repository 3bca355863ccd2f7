"""Texts to model: one inside Python, a small classic, or a file of one's own."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from pyro_vdn.datasets.cache import read_dataset
from pyro_vdn.datasets.checksum import read_file
from pyro_vdn.datasets.registry import dataset_info
from pyro_vdn.datasets.utf8 import utf8
from pyro_vdn.errors import InputError

TEXT_NAMES = ("pydoc", "tinyshakespeare")


@dataclass(frozen=True)
class Text:
    """A text and where it is from.

    Args:
        name: The name of the text.
        content: The text itself.
        origin: Where it is from, in words.

    Attributes:
        sha256: Of the content in UTF-8: what tells a run which text it saw.

    Raises:
        InputError: If nothing but white space is in it, or half a surrogate pair.

    Example:
        >>> text = Text("mine", "to be or not to be")
        >>> len(text), text.sha256[:8]
        (18, '2e9d72a7')
    """

    name: str
    content: str = field(repr=False)
    origin: str = ""
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        """Take the checksum."""
        if not self.content.strip():
            raise InputError(
                f"text {self.name!r}",
                expected="some text",
                got="nothing but white space" if self.content else "an empty one",
                hint="another file, or the text 'pydoc', which is inside Python",
            )
        object.__setattr__(self, "sha256", hashlib.sha256(utf8(self.content)).hexdigest())

    def __len__(self) -> int:
        """Count the characters."""
        return len(self.content)


def load_text(name_or_path: str | os.PathLike[str] = "pydoc") -> Text:
    """Load a text by name, or from a file.

    `"pydoc"` is what Python's `help()` says about the language: about 465,000 characters in
    Python 3.11, under the licence of Python. It is on every machine but **differs from one version
    of Python to the next**: compare figures only between texts of the same `sha256`.
    `"tinyshakespeare"` is looked for as `fetch` does and has 1,115,394 characters.

    Args:
        name_or_path: `"pydoc"`, `"tinyshakespeare"`, or the path of a file of UTF-8 text, plain or
            `.gz`. Line ends are kept as they are; a byte order mark is not.

    Returns:
        The text.

    Raises:
        InputError: If there is neither such a name nor such a file, the file cannot be read, is
            empty or not UTF-8, or as for `fetch`.

    Example:
        >>> text = load_text("pydoc")
        >>> text.content[:22], len(text) > 300_000
        ('The "assert" statement', True)
    """
    name = os.fspath(name_or_path)
    if name == "pydoc":
        return Text(name, _pydoc(), f"pydoc_data.topics of Python {platform.python_version()}")
    if name == "tinyshakespeare":
        return Text(name, read_dataset(name).decode(), dataset_info(name).url)
    return _from_file(Path(name))


def _from_file(path: Path) -> Text:
    if not os.path.exists(path):  # unlike Path's, False for a name that is too long
        raise InputError(
            f"text {str(path)!r}",
            expected=f"{', '.join(map(repr, TEXT_NAMES))} or the path of a file",
            got="no file at that path",
            hint="check the name, or give the whole path",
        )
    raw = read_file(path)
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            str(path),
            expected="UTF-8 text",
            got=f"byte 0x{raw[error.start]:02x} at offset {error.start} ({error.reason})",
            hint="save it as UTF-8; with iconv, `iconv -f latin1 -t utf-8`",
        ) from error
    return Text(path.name, content, str(path))


def _pydoc() -> str:
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise InputError(
            "text 'pydoc'",
            expected="the module pydoc_data, a part of Python",
            got=str(error),
            hint="Debian has it in libpython3-stdlib; or another text",
        ) from error
    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
