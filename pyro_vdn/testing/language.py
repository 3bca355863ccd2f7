"""A GPT written out by hand, and the noise of a run kept to be used again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from pyro_vdn.testing.cases import NormalParameters

#: From a block, and location and input of its units, to what the units pass on.
Units = Callable[[int, Tensor, Tensor], Tensor]


def gpt_by_hand(
    weights: Mapping[str, Tensor], tokens: Tensor, *, num_heads: int, units: Units | None = None
) -> Tensor:
    """Return the logits of a GPT, from the parameters of a `VariationalGPT` and tensors alone.

    Args:
        weights: Parameters by name.
        tokens: Sequences, `(rows, time)`.
        num_heads: Attention heads.
        units: What hidden units pass on; by default their location, as in the standard GPT.

    Returns:
        Logits, `(..., rows, time, vocabulary)`.

    Example:
        >>> from pyro_vdn.models import VariationalGPT
        >>> model = VariationalGPT(5, block_size=4, num_layers=1, num_heads=2, width=8)
        >>> weights = dict(model.named_parameters())
        >>> gpt_by_hand(weights, torch.zeros(2, 3, dtype=torch.long), num_heads=2).shape
        torch.Size([2, 3, 5])
    """
    x = weights["embed.weight"][tokens] + weights["embed_position.weight"][: tokens.shape[-1]]
    num_layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    for layer in range(num_layers):
        own = {
            name.removeprefix(f"blocks.{layer}."): value
            for name, value in weights.items()
            if name.startswith(f"blocks.{layer}.")
        }
        x = x + _attention(own, _norm(own, "attention_norm", x), num_heads)
        h = _norm(own, "neurons_norm", x)
        path = "neurons.posterior.loc.0" if "neurons.posterior.loc.0.weight" in own else "neurons.0"
        before = _linear(own, path, h)
        loc = 0.5 * before * (1 + torch.erf(before / math.sqrt(2)))
        x = x + _linear(own, "project", loc if units is None else units(layer, loc, h))
    return _norm(weights, "norm", x) @ weights["embed.weight"].T


def units_by_hand(
    weights: Mapping[str, Tensor], layer: int, loc: Tensor, h: Tensor, scale: str, prior: str
) -> tuple[NormalParameters, NormalParameters]:
    """Return posterior and prior of a block's neurons, from the parameters of a `VariationalGPT`.

    Args:
        weights: Parameters by name.
        layer: The block.
        loc: Location of the posterior, `(..., num_units)`.
        h: Input of the neurons, `(..., width)`.
        scale: What the posterior's scale depends on.
        prior: The prior.

    Example:
        >>> zero = torch.zeros(3)
        >>> weights = {"blocks.0.neurons.posterior.raw_scale.value": zero}
        >>> posterior, _ = units_by_hand(weights, 0, zero, zero, "unit", "standard")
        >>> posterior.scale
        tensor([0.6941, 0.6941, 0.6941])
    """
    top = f"blocks.{layer}.neurons."
    own = {name.removeprefix(top): value for name, value in weights.items() if name.startswith(top)}
    if scale == "low_rank":
        hidden = torch.tanh(_linear(own, "posterior.raw_scale.0", h))
        sigma = _softplus(_linear(own, "posterior.raw_scale.2", hidden))
    else:
        sigma = _softplus(own["posterior.raw_scale.value"])
    if scale == "relative":
        sigma = sigma * loc.abs()
    posterior = NormalParameters(loc, (1e-3 + sigma).expand(loc.shape))
    if prior == "standard":
        return posterior, NormalParameters(torch.zeros_like(loc), torch.ones_like(loc))
    if prior == "learned":
        m, raw = own["prior.loc"], own["prior.raw_scale"]
    else:
        read = h @ own["prior.read.weight"].T
        m, raw = _linear(own, "prior.loc", read), _linear(own, "prior.raw_scale", read)
    return posterior, NormalParameters(
        m.expand(loc.shape), (1e-3 + _softplus(raw)).expand(loc.shape)
    )


def normal_kl(q: NormalParameters, p: NormalParameters) -> Tensor:
    """Return the KL of normals, element by element.

    Args:
        q: The posterior.
        p: The prior, of the same shape.

    Example:
        >>> one = torch.ones(2)
        >>> normal_kl(NormalParameters(one, one), NormalParameters(0 * one, one))
        tensor([0.5000, 0.5000])
    """
    away = (q.loc - p.loc) ** 2
    return torch.log(p.scale / q.scale) + (q.scale**2 + away) / (2 * p.scale**2) - 0.5


class NoiseTape:
    """The noise of a run, call by call, to be drawn again for one of its particles.

    Example:
        >>> tape = NoiseTape()
        >>> with tape.recording():
        ...     first = torch.empty(4, 3).normal_()
        >>> with tape.replaying(particle=2):
        ...     again = torch.empty(3).normal_()
        >>> bool((again == first[2]).all())
        True
    """

    def __init__(self) -> None:
        self.draws: list[Tensor] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Keep what is drawn."""
        self.draws = []

        def keep(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def kept(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                draw(values, *args, **kwargs)
                self.draws.append(values.detach().clone())
                return values

            return kept

        with _drawing_by(keep(torch.Tensor.normal_), keep(torch.Tensor.bernoulli_)):
            yield

    @contextmanager
    def replaying(self, particle: int, dim: int = 0) -> Iterator[None]:
        """Draw again what was drawn for one particle.

        Args:
            particle: Which.
            dim: The dimension of particles in each draw.
        """
        left = list(self.draws)

        def again(values: Tensor, *_: Any, **__: Any) -> Tensor:
            return values.copy_(left.pop(0).select(dim, particle).reshape(values.shape))

        with _drawing_by(again, again):
            yield
        assert not left, "fewer draws than were kept"


@contextmanager
def _drawing_by(normal: Callable[..., Tensor], bernoulli: Callable[..., Tensor]) -> Iterator[None]:
    with (
        mock.patch.object(torch.Tensor, "normal_", normal),
        mock.patch.object(torch.Tensor, "bernoulli_", bernoulli),
    ):
        yield


def _attention(own: Mapping[str, Tensor], x: Tensor, num_heads: int) -> Tensor:
    """Attend head by head, with softmax and mask written out."""
    time, width = x.shape[-2:]
    size = width // num_heads
    future = torch.triu(torch.ones(time, time, dtype=torch.bool), diagonal=1)
    queries, keys, values = _linear(own, "attention.queries_keys_values", x).chunk(3, dim=-1)
    heads = []
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        score = queries[..., part] @ keys[..., part].transpose(-1, -2) / math.sqrt(size)
        score = score.masked_fill(future, -math.inf)
        weight = (score - score.amax(-1, keepdim=True)).exp()
        heads.append(weight / weight.sum(-1, keepdim=True) @ values[..., part])
    return _linear(own, "attention.project", torch.cat(heads, -1))


def _norm(own: Mapping[str, Tensor], path: str, x: Tensor) -> Tensor:
    away = x - x.mean(-1, keepdim=True)
    normed = away / (away.square().mean(-1, keepdim=True) + 1e-5).sqrt() * own[f"{path}.weight"]
    bias = own.get(f"{path}.bias")
    return normed if bias is None else normed + bias


def _linear(own: Mapping[str, Tensor], path: str, x: Tensor) -> Tensor:
    mapped, bias = x @ own[f"{path}.weight"].T, own.get(f"{path}.bias")
    return mapped if bias is None else mapped + bias


def _softplus(raw: Tensor) -> Tensor:
    return torch.log1p(raw.exp())
