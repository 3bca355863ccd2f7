from __future__ import annotations

import pytest
import torch

from pyro_vdn.datasets.token_checks import require_sequence, require_tokens
from pyro_vdn.errors import InputError


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3)])
def test_integers_of_any_shape_pass(dtype, shape):
    require_tokens("tokens", torch.ones(shape, dtype=dtype), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_other_types(dtype):
    with pytest.raises(InputError, match=r"x: expected integer tokens, got torch.*encode\(text\)"):
        require_tokens("x", torch.zeros(3, dtype=dtype))


@pytest.mark.parametrize(("token", "said"), [(5, "5"), (-1, "-1")])
def test_first_token_outside(token, said):
    tokens = torch.zeros(2, 3, dtype=torch.long)
    tokens[1, 0] = token
    message = rf"x: expected tokens in 0 to 4, got {said} at \(1, 0\)\. Try: the tokenizer that"
    with pytest.raises(InputError, match=message):
        require_tokens("x", tokens, 5)
    require_tokens("x", tokens)


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_one_sequence(shape):
    with pytest.raises(InputError, match=r"x: expected one sequence of shape \(time,\), got shape"):
        require_sequence("x", torch.zeros(shape, dtype=torch.long))
    with pytest.raises(InputError, match="got 7 at"):
        require_sequence("x", torch.tensor([0, 7]), 7)
