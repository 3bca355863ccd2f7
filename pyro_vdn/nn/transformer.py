"""Blocks of a Transformer whose feed-forward units may be distributional neurons."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn.shapes import check_positive


class CausalSelfAttention(nn.Module):
    r"""Multi-head attention of every token to itself and the tokens before it.

    `a = softmax(q k^T / sqrt(d) + causal mask) v` per head of size `d = width / num_heads`, then a
    linear map of all heads together. Any dimensions may stand to the left of that of tokens, such
    as particles: each attends to its own keys and values alone.

    Args:
        width: Size of a token's representation.
        num_heads: Number of heads; it divides the width.
        bias: Whether the linear maps have one.

    Shape:
        `(..., time, width)`, in and out.

    Raises:
        InputError: For a width that the heads do not divide.

    Example:
        >>> import torch
        >>> CausalSelfAttention(8, 2)(torch.zeros(4, 3, 5, 8)).shape
        torch.Size([4, 3, 5, 8])

    Source:
        Vaswani et al., *Attention Is All You Need*, NeurIPS 2017.
    """

    def __init__(self, width: int, num_heads: int, *, bias: bool = False) -> None:
        super().__init__()
        check_positive(width=width, num_heads=num_heads)
        if width % num_heads:
            raise InputError(
                "num_heads",
                expected=f"a divisor of width={width}",
                got=str(num_heads),
                hint=f"width={num_heads * (width // num_heads + 1)}, or fewer heads",
            )
        self.num_heads = num_heads
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=bias)
        self.project = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Let the tokens of `x`, `(..., time, width)`, attend to those before them."""
        *_, time, width = x.shape
        heads = self.queries_keys_values(x).reshape(
            -1, time, 3, self.num_heads, width // self.num_heads
        )
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)  # each (sequences, heads, time, size)
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        mixed: Tensor = self.project(attended.transpose(1, 2).reshape(x.shape))
        return mixed


class TransformerBlock(nn.Module):
    """A pre-norm block: `x + attention(norm(x))`, then `x + project(units(norm(x)))`.

    The hidden units are a module of their own: `nn.Sequential(nn.Linear(...), nn.GELU())` for an
    ordinary block, `VariationalNeurons` for a distributional one. Attention, residuals and norms do
    not know the difference.

    Args:
        width: Size of a token's representation.
        num_heads: Number of attention heads.
        neurons: The hidden units, from `(..., time, width)` to `(..., time, num_units)`.
        num_units: How many they are.
        bias: Whether linear maps and norms have one.

    Shape:
        `(..., time, width)`, in and out.

    Example:
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> block = TransformerBlock(8, 2, VariationalNeurons(8, 32), 32)
        >>> block(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self, width: int, num_heads: int, neurons: nn.Module, num_units: int, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.attention = CausalSelfAttention(width, num_heads, bias=bias)
        self.neurons_norm = nn.LayerNorm(width, bias=bias)
        self.neurons = neurons
        self.project = nn.Linear(num_units, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the representations after attention and hidden units, `(..., time, width)`."""
        x = x + self.attention(self.attention_norm(x))
        result: Tensor = x + self.project(self.neurons(self.neurons_norm(x)))
        return result
