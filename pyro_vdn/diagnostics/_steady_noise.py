"""The same noise in every run of a program, of exact mean and variance over draws."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.infer.evaluating import own_noise
from pyro_vdn.nn.sites import PRIOR, Message, layer_of
from pyro_vdn.poutine import NeuronMessenger
from pyro_vdn.poutine.clamp import is_normal


class SteadyNoise(NeuronMessenger):
    r"""Draw neurons as `mean + scale * eps` with the same `eps` in every run.

    Over draws, the first dimension, each `eps` has mean 0 and variance 1 exactly, so that the
    variance of what is linear in one unit is exact with any number of draws. The noise of a site
    hangs on the seed and the site's name alone: it stays, whatever is done to other sites. The
    effect stands outside of the plate of draws and of all other effects.

    Args:
        seed: Seed of the noise.
        reflected: By layer path, which units take `-eps`, boolean `(num_units,)`.

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

    def __init__(self, seed: int, reflected: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.seed = seed
        self.reflected = reflected or {}

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
        with own_noise(zlib.crc32(f"{self.seed} {msg['name']}".encode())):
            drawn = posterior.rsample()
        mean, scale = posterior.mean, posterior.variance.sqrt()
        noise = torch.where(scale > 0, (drawn - mean) / scale, 0.0)
        noise = noise - noise.mean(0)
        spread = noise.std(0)
        noise = torch.where(spread > 0, noise / spread, 0.0)
        if path in self.reflected:
            turned = self.reflected[path]
            turned = turned.reshape(turned.shape + (1,) * posterior.event_dim)
            noise = torch.where(turned, -noise, noise)
        msg["value"] = mean + scale * noise
