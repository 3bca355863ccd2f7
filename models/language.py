"""A small GPT whose feed-forward units are distributional neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import pyro
import torch.nn.functional as F
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_vdn.errors import InputError
from pyro_vdn.nn import (
    CategoricalLikelihood,
    ConditionalNormal,
    LearnedNormal,
    NormalPosterior,
    StandardNormal,
    TransformerBlock,
    VariationalNeurons,
)
from pyro_vdn.nn.shapes import check_choice, check_positive
from pyro_vdn.tokens import check_sequences

TokenPrior = Literal["standard", "learned", "conditional"]
#: Scales of a posterior that cost little: a full map of the input would be a layer of its own.
TokenScale = Literal["shared", "unit", "relative", "low_rank"]
_CONDITIONAL_RANK = 4


class VariationalGPT(PyroModule):
    r"""A decoder-only Transformer whose feed-forward units are random.

    In every block the activation `act(W h)` of the hidden units becomes the location of a
    posterior: `z_i ~ Normal(act(W h)_i, sigma_i^2)` with `z_i ~ p(z_i)` a priori; attention,
    residuals and norms are those of a GPT. So `deterministic(model)` *is* the standard GPT of the
    same weights, and from a width of 128 on scales and priors add at most 5 % to its parameters. A
    draw of all layers is one coherent trajectory: particles of a loss, or draws of `token_draws`,
    have queries, keys, values and residuals of their own from the first neuron layer on, and share
    what stands before.

    Args:
        vocab_size: Number of tokens.
        block_size: Largest number of tokens of a sequence.
        num_layers: Number of blocks.
        num_heads: Attention heads of each block.
        width: Size of a token's representation; a block has 4 times as many hidden units.
        neuron_layers: Which blocks have distributional units, counted from 0; None for all. The
            others have the same units without noise.
        prior: Prior of the units, or one per layer of neurons: ``"standard"``, ``"learned"`` (a
            location and scale per unit) or ``"conditional"`` on the samples of the blocks below,
            through maps of rank 4.
        scale: What the posterior's scale depends on: ``"shared"``, ``"unit"``, ``"relative"`` or
            ``"low_rank"``, as in `NormalPosterior`.
        initial_scale: Scale of every unit at the start.
        bias: Whether linear maps and norms have one.

    Shape:
        `tokens` and `targets` are integers, `(..., rows, time)`. Sites: ``blocks.<l>.neurons.z`` of
        batch shape `(..., rows, time, 4 * width)` and ``next_token`` of batch shape
        `(..., rows, time, 1)`, in the plates ``data`` at -3 and ``tokens`` at -2.

    Raises:
        InputError: For sizes that do not fit, an unknown choice or layer, and tokens that are not
            integers in the vocabulary or too many for a block.

    Example:
        >>> import torch
        >>> model = VariationalGPT(65, block_size=16, num_layers=2, width=32)
        >>> model(torch.zeros(3, 16, dtype=torch.long)).shape
        torch.Size([3, 16])

    Source:
        Ruffenach, *Variational Neurons in Transformers for Language Modeling*, arXiv:2603.28219
        (2026); Karpathy, *nanoGPT* (2022), for sizes and initial weights.
    """

    def __init__(
        self,
        vocab_size: int,
        *,
        block_size: int = 64,
        num_layers: int = 4,
        num_heads: int = 4,
        width: int = 128,
        neuron_layers: Sequence[int] | None = None,
        prior: TokenPrior | Sequence[TokenPrior] = "learned",
        scale: TokenScale = "unit",
        initial_scale: float = 0.1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_positive(
            vocab_size=vocab_size, block_size=block_size, num_layers=num_layers, width=width
        )
        check_choice("scale", scale, get_args(TokenScale), hint='scale="low_rank" for the input')
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.neuron_layers = _checked_layers(neuron_layers, num_layers)
        priors = dict(zip(self.neuron_layers, _one_each(prior, self.neuron_layers), strict=True))
        self.embed = nn.Embedding(vocab_size, width)
        self.embed_position = nn.Embedding(block_size, width)

        def units(layer: int) -> nn.Module:
            activation = nn.Sequential(nn.Linear(width, 4 * width, bias=bias), nn.GELU())
            if layer not in priors:
                return activation
            posterior = NormalPosterior(scale, loc=activation, initial_scale=initial_scale)
            return VariationalNeurons(
                width, 4 * width, prior=_make_prior(priors[layer]), posterior=posterior
            )

        self.blocks = nn.ModuleList(
            TransformerBlock(width, num_heads, units(layer), 4 * width, bias=bias)
            for layer in range(num_layers)
        )
        self.norm = nn.LayerNorm(width, bias=bias)
        self.likelihood = CategoricalLikelihood()
        self._initialise(num_layers)

    def _initialise(self, num_layers: int) -> None:
        """Draw weights as GPT-2 does; those that write to the residual stream are smaller."""
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            activation: Any = block.neurons
            if isinstance(activation, VariationalNeurons):
                activation = activation.posterior.loc
            attention = block.attention
            for linear in (activation[0], attention.queries_keys_values):
                _draw_weights(linear, 0.02)
            for linear in (block.project, attention.project):
                _draw_weights(linear, 0.02 / math.sqrt(2 * num_layers))
        for embedding in (self.embed, self.embed_position):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """Sample or observe the token that follows each one.

        Args:
            tokens: Sequences, `(..., rows, time)`.
            targets: The token after each, of the same shape, or None to sample them.

        Returns:
            The tokens after each, `(..., rows, time)`.
        """
        check_sequences("tokens", tokens, self.vocab_size, self.block_size)
        if targets is not None:
            check_sequences("targets", targets, self.vocab_size, self.block_size, like=tokens)
            targets = targets.long()
        tokens = tokens.long()  # such as bytes: tables are read at nothing smaller than an int
        rows, time = tokens.shape[-2:]
        with pyro.plate("data", rows, dim=-3), pyro.plate("tokens", time, dim=-2):
            x = self.embed(tokens) + self.embed_position.weight[:time]
            for block in self.blocks:
                x = block(x)
            logits = F.linear(self.norm(x), self.embed.weight)
            observed = None if targets is None else targets.unsqueeze(-1)
            drawn: Tensor = pyro.sample("next_token", self.likelihood(logits), obs=observed)
        return drawn.squeeze(-1)


def _checked_layers(layers: Sequence[int] | None, num_layers: int) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(num_layers))
    chosen = sorted(set(layers))
    if len(chosen) < len(layers) or any(not 0 <= layer < num_layers for layer in chosen):
        raise InputError(
            "neuron_layers",
            expected=f"different layers in 0 to {num_layers - 1}",
            got=repr(tuple(layers)),
            hint="neuron_layers=None for all of them",
        )
    return tuple(chosen)


def _one_each(
    prior: TokenPrior | Sequence[TokenPrior], layers: tuple[int, ...]
) -> Sequence[TokenPrior]:
    priors = [prior] * len(layers) if isinstance(prior, str) else prior
    if len(priors) != len(layers):
        raise InputError(
            "prior",
            expected=f"one, or one for each of the {len(layers)} layers of neurons",
            got=f"{len(priors)}",
            hint='prior="learned"',
        )
    for name in priors:
        check_choice("prior", name, get_args(TokenPrior))
    return priors


def _make_prior(name: TokenPrior) -> nn.Module:
    if name == "conditional":
        return ConditionalNormal(rank=_CONDITIONAL_RANK)
    return LearnedNormal() if name == "learned" else StandardNormal()


def _draw_weights(linear: nn.Linear, scale: float) -> None:
    nn.init.normal_(linear.weight, std=scale)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
