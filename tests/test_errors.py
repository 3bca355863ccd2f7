"""The error family."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import Adam
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression

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


RECIPE = errors.InputError("x", expected="one", got="two", hint="x=1")


@pytest.mark.parametrize(
    "send", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy]
)
def test_an_error_travels(send: Callable[[Any], Any]) -> None:
    arrived = send(RECIPE)
    assert type(arrived) is errors.InputError
    assert str(arrived) == str(RECIPE)


@pytest.mark.parametrize("wide", ["model", "guide"])
def test_an_error_comes_through_a_traced_program(wide: str) -> None:
    model = Regression(3, num_units=4)
    x, y = torch.randn(5, 7), torch.randn(5, 1)
    guide = NeuronGuide(model) if wide == "guide" else lambda x, y: None
    svi = SVI(model, guide, Adam({"lr": 1e-2}), Trace_ELBO())
    with pytest.raises(errors.InputError, match=r"(?s)^x.*: expected .*3.*got .*7.*Try: "):
        svi.step(x, y)


def test_public_names_exist() -> None:
    assert all(hasattr(pyro_vdn, name) for name in pyro_vdn.__all__)
