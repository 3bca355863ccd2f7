from __future__ import annotations

import pytest

from pyro_vdn.datasets.utf8 import shown, utf8
from pyro_vdn.errors import InputError


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b" the", " the"),
        (b"\n", "\n"),
        ("é".encode(), "é"),
        (b"\xa9", r"\xa9"),
        (b"a\xc3", r"a\xc3"),
    ],
)
def test_bytes_are_shown_as_text_where_they_are(content, text):
    assert shown(content) == text


def test_half_a_surrogate_pair():
    assert utf8("né") == b"n\xc3\xa9"
    message = (
        r"text: expected characters that UTF-8 can write, got U\+DC80 at character 1, half .*Try"
    )
    with pytest.raises(InputError, match=message):
        utf8("a\udc80")
