from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pyro_vdn.errors import InputError, RunFolderError
from pyro_vdn.train import load_checkpoint, save_checkpoint
from pyro_vdn.train.checkpoint import random_state, set_random_state
from pyro_vdn.train.files import load_tensors, read_json, save_tensors, write_json

SHARED = torch.arange(6.0)
STATE: dict[str, Any] = {
    "step": 3,
    "best": math.inf,
    "rate": 0.1 + 0.2,
    "name": "run",
    "none": None,
    "flag": True,
    "empty": {},
    "list": [1, (2, [3.5])],
    "moments": {0: {"exp_avg": torch.randn(2, 3)}, 1: {"step": torch.tensor(4.0)}},
    "views": [SHARED, SHARED[::2], SHARED.view(2, 3).T],
    "kinds": [
        torch.tensor([True]),
        torch.zeros(2, dtype=torch.uint8),
        torch.ones(2, dtype=torch.bfloat16),
        torch.zeros(0),
    ],
}


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)):
        pairs = zip(left, right, strict=True)
        return type(left) is type(right) and all(equal(*pair) for pair in pairs)
    return type(left) is type(right) and left == right


def test_states_come_back_with_types_and_bits(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", STATE)
    assert equal(load_checkpoint(tmp_path / "a.safetensors"), STATE)
    assert [item.name for item in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("value", [{"a": object()}, {"a": [Path("b")]}, {1.5: 2}])
def test_what_would_need_pickle_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected tensors, numbers, strings"):
        save_checkpoint(tmp_path / "a.safetensors", value)
    assert not list(tmp_path.iterdir())


def test_an_older_file_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"step": 1})

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(RunFolderError, match="No space left"):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files_are_refused(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"w": torch.ones(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunFolderError, match=r"damaged.*Try: another checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("place", [-1, -100])
def test_a_flipped_bit_is_noticed(place: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"w": torch.ones(100)})
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RunFolderError, match="checksum does not match"):
        load_checkpoint(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(RunFolderError, match="not one of this library"):
        load_checkpoint(path)
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(RunFolderError, match="not a safetensors file"):
        load_checkpoint(path)
    save_tensors(path, {"w": torch.ones(2)})
    with pytest.raises(RunFolderError, match="no training state"):
        load_checkpoint(path)
    with pytest.raises(RunFolderError, match="no such file"):
        load_checkpoint(tmp_path / "b.safetensors")


def test_tensors_and_json_round_trip(tmp_path: Path) -> None:
    save_tensors(tmp_path / "deep/er/w.safetensors", {"w": SHARED[::2]}, {"a": "b"})
    tensors, metadata = load_tensors(tmp_path / "deep/er/w.safetensors")
    assert torch.equal(tensors["w"], SHARED[::2])
    assert metadata == {"a": "b"}
    write_json(tmp_path / "a.json", {"é": [1.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1.5, None]}


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON, or damaged"), ("[]", "expected a JSON object, got list")]
)
def test_bad_json_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RunFolderError, match=message):
        read_json(tmp_path / "a.json")
    with pytest.raises(RunFolderError, match="cannot be read"):
        read_json(tmp_path / "b.json")


def test_random_state_comes_back() -> None:
    state = random_state()
    first = torch.rand(3)
    set_random_state(state)
    assert torch.equal(torch.rand(3), first)


def test_random_state_comes_back_from_a_row_of_several() -> None:
    every = torch.stack([random_state()["cpu"] for _ in range(2)])
    first = torch.rand(3)
    for state in every:
        set_random_state({"cpu": state})
        assert torch.equal(torch.rand(3), first)
