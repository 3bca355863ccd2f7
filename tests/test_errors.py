"""The error family."""

from __future__ import annotations

import pytest

import pyro_vdn
from pyro_vdn import errors


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.InputError, ValueError),
        (errors.OneSidedEffectError, RuntimeError),
        (errors.NoTrainingError, RuntimeError),
        (errors.RunFolderError, OSError),
    ],
)
def test_family(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, errors.VDNError)
    assert issubclass(error, builtin)
    assert getattr(pyro_vdn, error.__name__) is error


def test_an_error_is_a_recipe() -> None:
    error = errors.InputError("x", expected="one", got="two", hint="x=1")
    assert str(error) == "x: expected one, got two. Try: x=1"


def test_public_names_exist() -> None:
    assert all(hasattr(pyro_vdn, name) for name in pyro_vdn.__all__)
