"""Parameters that `fit` leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch

from pyro_vdn.errors import InputError
from pyro_vdn.train import fit
from pyro_vdn.train.freeze import Freeze


def test_they_neither_move_nor_decay(
    data: Any, options: Callable[..., Any], make_model: Callable[[], Any]
) -> None:
    start = make_model().state_dict()
    result = fit(
        make_model(),
        *data,
        options=options(max_steps=3, weight_decay=0.5),
        callbacks=[Freeze("neurons.")],
    )
    for name, value in result.model.state_dict().items():
        assert torch.equal(value, start[name]) == name.startswith("neurons."), name


def test_the_norm_that_is_clipped_is_that_of_the_others(
    data: Any, options: Callable[..., Any], make_model: Callable[[], Any]
) -> None:
    norms: list[float] = []

    class Look(lightning.Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            found = [one.grad for one in pl_module.held if one.grad is not None]
            if found:
                norms.append(float(torch.stack([one.norm() for one in found]).norm()))

    fit(
        make_model(),
        *data,
        options=options(max_steps=3, clip=1e-3),
        callbacks=[Freeze("neurons."), Look()],
    )
    assert norms
    assert all(norm == pytest.approx(1e-3, rel=1e-3) for norm in norms)


def test_a_name_that_is_nowhere_is_refused(
    data: Any, options: Callable[..., Any], make_model: Callable[[], Any]
) -> None:
    with pytest.raises(InputError, match="expected a part of the name of a parameter, got 'none'"):
        fit(make_model(), *data, options=options(), callbacks=[Freeze("none")])
