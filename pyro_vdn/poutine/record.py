"""Effect: see what neurons do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vdn.nn.divergence import neuron_kl
from pyro_vdn.nn.sites import POSTERIOR, PRIOR, Message, is_neuron, layer_of

_RECORDED = "vdn_recorded"


class StreamingMoments:
    r"""Mean and variance of a per-unit quantity over all rows seen so far, merged batch by batch.

    Uses the pairwise update of Chan, Golub, LeVeque (1983): no row is kept, and no large sum of
    squares is subtracted.

    Example:
        >>> moments = StreamingMoments()
        >>> for batch in torch.arange(6.0).reshape(2, 3, 1):
        ...     moments.update(batch)
        >>> moments.mean, moments.variance, moments.count
        (tensor([2.5000]), tensor([2.9167]), 6)
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.zeros(())
        self._squares = torch.zeros(())

    def update(self, values: Tensor) -> None:
        """Merge a batch, shape `(..., num_units)`; every leading dimension counts as rows."""
        rows = values.detach().reshape(-1, values.shape[-1])
        if len(rows) == 0:
            return
        mean = rows.mean(0)
        total = self.count + len(rows)
        shift = mean - self._mean
        self._squares = (
            self._squares
            + (rows - mean).square().sum(0)
            + shift.square() * (self.count * len(rows) / total)
        )
        self._mean = self._mean + shift * (len(rows) / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """Mean over rows, `(num_units,)`."""
        return self._mean

    @property
    def variance(self) -> Tensor:
        """Variance over rows (divisor: the count), `(num_units,)`."""
        return self._squares / max(self.count, 1)

    @property
    def standard_error(self) -> Tensor:
        """Standard error of the mean, `(num_units,)`."""
        return (self.variance / max(self.count, 1)).sqrt()


class LayerRecord:
    """What one layer's neurons did: the last batch in full, and streaming moments over all batches.

    The last batch is in `last_loc`, `last_scale` of shape `(..., num_units[, latent_dim])` and
    `last_kl` of shape `(..., num_units)`; latent dimensions are averaged in the moments of location
    and scale. All are detached.

    Example:
        >>> LayerRecord().kl.count
        0
    """

    last_loc: Tensor
    last_scale: Tensor
    last_kl: Tensor

    def __init__(self) -> None:
        self.loc = StreamingMoments()
        self.scale = StreamingMoments()
        self.variance = StreamingMoments()
        self.energy = StreamingMoments()
        self.kl = StreamingMoments()

    def update(self, loc: Tensor, scale: Tensor, kl: Tensor) -> None:
        """Take in a batch.

        Args:
            loc: Locations, `(..., num_units[, latent_dim])`.
            scale: Scales, `(..., num_units[, latent_dim])`.
            kl: KLs, `(..., num_units)`.
        """
        self.last_loc, self.last_scale, self.last_kl = loc, scale, kl
        by_latent = loc.dim() > kl.dim()
        for moments, values in (
            (self.loc, loc),
            (self.scale, scale),
            (self.variance, scale.square()),
            (self.energy, loc.square()),
        ):
            moments.update(values.mean(-1) if by_latent else values)
        self.kl.update(kl)


class RecordMessenger(Messenger, Mapping[str, LayerRecord]):
    """Record location, scale and KL of every neuron by layer path; see `record`.

    Example:
        >>> len(RecordMessenger())
        0
    """

    def __init__(self) -> None:
        super().__init__()
        self._layers: dict[str, LayerRecord] = {}

    def __getitem__(self, path: str) -> LayerRecord:
        """Return the record of the layer at `path`."""
        return self._layers[path]

    def __iter__(self) -> Iterator[str]:
        """Iterate over layer paths in the order of their first sample."""
        return iter(self._layers)

    def __len__(self) -> int:
        """Return the number of layers seen."""
        return len(self._layers)

    def __eq__(self, other: object) -> bool:
        """Compare by identity, as the effect stack needs."""
        return self is other

    __hash__ = object.__hash__

    def _pyro_post_sample(self, msg: Message) -> None:
        # A two-pass loss replays the model with the guide's infer dictionary: the mark keeps it
        # from counting twice.
        if not is_neuron(msg) or msg["is_observed"] or _RECORDED in msg["infer"]:
            return
        msg["infer"][_RECORDED] = True
        with torch.no_grad():
            drawn_from_posterior = PRIOR in msg["infer"]
            posterior = msg["fn"] if drawn_from_posterior else msg["infer"][POSTERIOR]()
            prior = msg["infer"][PRIOR] if drawn_from_posterior else msg["fn"]
            value = msg["value"] if drawn_from_posterior else posterior.sample()
            kl = neuron_kl(posterior, prior, value).expand(posterior.batch_shape)
            layer = self._layers.setdefault(layer_of(msg["name"]), LayerRecord())
            layer.update(posterior.mean.detach(), posterior.variance.sqrt().detach(), kl.detach())


def record(model: Callable[..., Any] | None = None) -> Any:
    """Record every unit's posterior location and scale and its unweighted KL while a program runs.

    As a context, ``with record() as seen:`` gives a mapping from layer path to `LayerRecord`;
    batches that run inside are merged. It sees guide programs, single-pass losses and plain prior
    runs (there it evaluates the offered posterior); under a two-pass loss each step counts once.

    Args:
        model: A Pyro program; with one, a pair of the wrapped program and the record is returned
            instead.

    Returns:
        The effect, or ``(wrapped program, record)``.

    Example:
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> layer = VariationalNeurons(3, 4)
        >>> with record() as seen:
        ...     _ = layer(torch.ones(2, 3))
        >>> seen[""].kl.mean.shape, seen[""].last_loc.shape
        (torch.Size([4]), torch.Size([2, 4]))
    """
    messenger = RecordMessenger()
    return messenger if model is None else (messenger(model), messenger)
