"""Noise of its own for a block, and the caller's left as it was."""

from __future__ import annotations

import pytest
import torch
from pyro_vdn.guides import NeuronGuide
from pyro_vdn.models import Regression

from pyro_vdn.infer.closed_form import has_closed_form
from pyro_vdn.infer.evaluating import kept_noise, own_noise
from pyro_vdn.infer.joint_draws import look_at
from pyro_vdn.infer.plates import guess_max_plate_nesting


def test_noise_goes_on_where_it_stood() -> None:
    state = torch.get_rng_state()
    expected = torch.randn(3)
    torch.set_rng_state(state)
    with kept_noise():
        inside = torch.randn(3)
    with own_noise(5):
        other = torch.randn(3)
    assert torch.equal(inside, expected)
    assert not torch.equal(other, expected)
    assert torch.equal(torch.randn(3), expected)


def test_gpus_that_were_not_asked_for_are_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of a GPU is read by starting it, and of several with a warning."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    model, x = Regression(2), (torch.zeros(3, 2),)
    assert look_at(model, x).dim == -3
    assert guess_max_plate_nesting(model, x) == 2
    assert has_closed_form(model, NeuronGuide(model), x)
