"""How many CPU threads a command takes."""

from __future__ import annotations


def set_threads(count: int) -> None:
    """Let torch compute on a number of CPU threads.

    Args:
        count: The number. On a busy machine threads of small models mostly wait for each other:
            there one is several times faster than two.
    """
    import torch

    torch.set_num_threads(count)
