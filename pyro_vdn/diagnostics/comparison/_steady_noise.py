"""The same noise in every run of a program, of exact mean and variance over draws."""

from __future__ import annotations

import zlib
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.evaluating import own_noise
from pyro_vdn.nn.sites import PRIOR, Message, layer_of
from pyro_vdn.poutine import NeuronMessenger
from pyro_vdn.poutine.clamp import is_normal
from pyro_vdn.poutine.leaves import is_plain_normal
from pyro_vdn.poutine.share_noise import SharedNormal


class SteadyNoise(NeuronMessenger):
    r"""Draw neurons as `mean + scale * eps` with the same `eps` in every run.

    Over draws, the first dimension, each `eps` has mean 0 and variance 1 exactly, and those of one
    unit's latent dimensions no correlation, so that the variance of what is linear in one unit is
    exact with any number of draws above that of its latent dimensions. The noise of a site hangs on
    the seed and the site's name alone: it stays, whatever is done to other sites. The effect stands
    outside of the plate of draws and of all other effects.

    Args:
        seed: Seed of the noise.
        reflected: By layer path, which units take `-eps`, boolean `(num_units,)`.
        kept: Noise by site, from run to run: what the first of them, without holds, puts into it,
            later ones take. Sites whose noise cannot be kept are drawn each time anew, the same.

    Raises:
        InputError: For a posterior that is not normal.

    Example:
        >>> import pyro
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import PosteriorMessenger
        >>> layer, x = VariationalNeurons(3, 4), torch.ones(2, 3)
        >>> with SteadyNoise(0), pyro.plate("draws", 5, dim=-3), PosteriorMessenger():
        ...     z = layer(x)
        >>> torch.allclose(z.var(0), layer.posterior(x).variance)
        True
    """

    def __init__(
        self,
        seed: int,
        reflected: dict[str, Tensor] | None = None,
        kept: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.reflected = reflected or {}
        self.kept = {} if kept is None else kept

    def on_neuron(self, msg: Message) -> None:
        """Set the value of a site that is to be drawn from its posterior."""
        if msg["value"] is not None or PRIOR not in msg["infer"]:
            return
        path, posterior = layer_of(msg["name"]), msg["fn"]
        if not is_normal(posterior):
            raise InputError(
                f"posterior of layer '{path}'",
                expected="a normal one, which is as likely on either side of its mean",
                got=f"a {type(posterior).__name__}",
                hint="leave out effects such as dropout",
            )
        noise = self.kept.get(msg["name"])
        if noise is None:
            with own_noise(zlib.crc32(f"{self.seed} {msg['name']}".encode())):
                noise = _standard_noise(posterior)
            if _is_by_element(posterior):
                self.kept[msg["name"]] = noise
        if path in self.reflected:
            sign = 1.0 - 2.0 * self.reflected[path].to(noise.dtype)
            noise = noise * sign.reshape(sign.shape + (1,) * posterior.event_dim)
        msg["value"] = torch.addcmul(posterior.mean, posterior.variance.sqrt(), noise)


def _standard_noise(posterior: Any) -> Tensor:
    """Draw, and return the noise over mean and scale, standardised over draws; 0 if there is none.

    What is drawn by recurrence or shared among steps is as it should be in any of them.
    """
    scale = posterior.variance.sqrt()
    noise = torch.where(scale > 0, (posterior.rsample() - posterior.mean) / scale, 0.0)
    noise = noise - noise.mean(0)
    if posterior.event_dim == 1 and noise.shape[-1] < len(noise) and _is_by_element(posterior):
        noise = _uncorrelated(noise)
    spread = noise.std(0)
    return torch.where(spread > 0, noise / spread, 0.0)


def _uncorrelated(noise: Tensor) -> Tensor:
    """Take out what latent dimensions of a unit share by chance, `(draws, ..., latent_dim)`."""
    parts: list[Tensor] = []
    for part in noise.unbind(-1):
        for other in parts:
            size = other.square().sum(0)
            part = part - other * torch.where(size > 0, (part * other).sum(0) / size, 0.0)
        parts.append(part)
    return torch.stack(parts, -1)


def _is_by_element(posterior: Any) -> bool:
    """Say whether each element has noise of its own, whatever its mean and scale."""
    if isinstance(posterior, (dist.Independent, MaskedDistribution)):
        return _is_by_element(posterior.base_dist)
    return is_plain_normal(posterior) and not isinstance(posterior, SharedNormal)
