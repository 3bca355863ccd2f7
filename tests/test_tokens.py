from __future__ import annotations

import pytest
import torch

from pyro_vdn.errors import InputError
from pyro_vdn.tokens import check_sequence, check_sequences, check_tokens


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3)])
def test_integers_of_any_shape_pass(dtype, shape):
    check_tokens("tokens", torch.ones(shape, dtype=dtype), 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_other_types(dtype):
    with pytest.raises(InputError, match=r"x: expected integer tokens, got torch.*encode\(text\)`"):
        check_tokens("x", torch.zeros(3, dtype=dtype))


@pytest.mark.parametrize(("token", "said"), [(5, "5"), (-1, "-1")])
def test_first_token_outside(token, said):
    tokens = torch.zeros(2, 3, dtype=torch.long)
    tokens[1, 0] = token
    message = rf"x: expected tokens in 0 to 4, got {said} at \(1, 0\)\. Try: the tokenizer that"
    with pytest.raises(InputError, match=message):
        check_tokens("x", tokens, 5)
    check_tokens("x", tokens)


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_one_sequence(shape):
    with pytest.raises(InputError, match=r"x: expected one sequence of shape \(time,\), got shape"):
        check_sequence("x", torch.zeros(shape, dtype=torch.long))
    with pytest.raises(InputError, match="got 7 at"):
        check_sequence("x", torch.tensor([0, 7]), 7)


@pytest.mark.parametrize("shape", [(4,), (2, 0), (0, 3), (2, 4)])
def test_sequences_have_rows_and_are_not_too_long(shape):
    with pytest.raises(
        InputError, match=r"x: expected shape \(rows, time\) of 1 row or more, with"
    ):
        check_sequences("x", torch.zeros(shape, dtype=torch.long), 5, 3)
    check_sequences("x", torch.zeros((6, 2, 3), dtype=torch.uint16), 5, 3)


def test_sequences_fit_others_and_a_vocabulary():
    tokens = torch.full((2, 3), 7)
    with pytest.raises(
        InputError, match=r"x: expected shape \(2, 2\), got shape \(2, 3\)\. Try: the"
    ):
        check_sequences("x", tokens, 8, 3, like=tokens[:, 1:])
    with pytest.raises(InputError, match=r"x: expected tokens in 0 to 6, got 7 at \(0, 0\)"):
        check_sequences("x", tokens, 7, 3, like=tokens)
    with pytest.raises(InputError, match=r"x: expected integer tokens, got torch.float64"):
        check_sequences("x", tokens.double(), 8, 3)
    check_sequences("x", tokens, 8, 3, like=tokens)
