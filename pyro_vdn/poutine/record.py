"""Effect: see what neurons do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_vdn.nn.following import Present
from pyro_vdn.nn.normals import unexpanded
from pyro_vdn.nn.sites import POSTERIOR, PRESENT, Message, is_neuron, layer_of, step_of
from pyro_vdn.nn.unit_measures import precise
from pyro_vdn.poutine.quantities import PriorPasts, quantities, squared

_RECORDED = "vdn_recorded"
_LAST = ("last_loc", "last_scale", "last_kl")


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
        rows = math.prod(values.shape[:-1])
        if rows == 0:
            return
        # What is the same for all rows, such as a scale per unit, is looked at once.
        held = precise(unexpanded(values).detach())
        held = held.reshape(-1, held.shape[-1] if held.dim() else 1).expand(-1, values.shape[-1])
        mean = held.mean(0)
        centred = held - mean
        # `var_mean` down the columns takes several times as long.
        self._merge(rows, mean, (centred * centred).sum(0) * (rows / len(held)))

    def merge(self, other: StreamingMoments) -> None:
        """Merge what another instance has seen, for example in another process."""
        if other.count:
            self._merge(other.count, other._mean, other._squares)

    def to(self, device: torch.device | str) -> None:
        """Move to a device."""
        self._mean, self._squares = self._mean.to(device), self._squares.to(device)

    def _merge(self, rows: int, mean: Tensor, squares: Tensor) -> None:
        total = self.count + rows
        shift = mean - self._mean
        self._squares = self._squares + squares + shift.square() * (self.count * rows / total)
        self._mean = self._mean + shift * (rows / total)
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
    `last_kl` of shape `(..., num_units)`. All are detached.

    Latent dimensions are averaged in `loc`, `scale`, `variance`, `energy` and `prior_variance`.
    What they do one by one is in `latent_loc`, `latent_scale` and `latent_variance`, of shape
    `(num_units * latent_dim,)`, latent dimensions last; these are empty where there is but one.
    `shifted_energy` is that about the prior's location, empty where that is known to be 0.

    Of neurons with memory every step is a row, and location, scale and prior variance are those of
    a step by itself, whatever the steps before it, also in a `pyro.markov` loop. `innovation` holds
    their `E_q[(z_t - E_p[z_t | past])^2]` from the second step on: how far they are from what their
    prior carries over. It is empty without memory.

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
        self.prior_variance = StreamingMoments()
        self.kl = StreamingMoments()
        self.shifted_energy = StreamingMoments()
        self.innovation = StreamingMoments()
        self.latent_loc = StreamingMoments()
        self.latent_scale = StreamingMoments()
        self.latent_variance = StreamingMoments()

    @property
    def energy_about_prior(self) -> StreamingMoments:
        """Moments of the squared distance of locations from the prior's, `(num_units,)`."""
        return self.shifted_energy if self.shifted_energy.count else self.energy

    def update(
        self,
        loc: Tensor,
        scale: Tensor,
        kl: Tensor,
        prior_scale: Tensor,
        prior_loc: Tensor | None = None,
        innovation: Tensor | None = None,
        present: Present | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            loc: Locations of the posterior, `(..., num_units[, latent_dim])`.
            scale: Its scales, `(..., num_units[, latent_dim])`.
            kl: KLs, `(..., num_units)`.
            prior_scale: Scales of the prior, `(..., num_units[, latent_dim])`.
            prior_loc: Its locations, which broadcast to those of the posterior; None for 0.
            innovation: Squared innovations, `(..., steps, num_units)`; None without memory.
            present: Which rows or steps have input, `(...)`; None for all. Others do not count.
        """
        self.last_loc, self.last_scale, self.last_kl = loc, scale, kl
        by_latent = loc.dim() > kl.dim()
        if present is not None:
            here = present.here.expand(kl.shape[:-1])
            if innovation is not None:
                # The first step with input starts a sequence: those after it can renew it.
                later = here & present.before
                innovation = innovation[later[..., -innovation.shape[-2] :]]
            if prior_loc is not None:
                prior_loc = prior_loc.expand(loc.shape)[here]
            loc, scale, kl, prior_scale = loc[here], scale[here], kl[here], prior_scale[here]
        variance = squared(scale)
        for moments, values in (
            (self.loc, loc),
            (self.scale, scale),
            (self.variance, variance),
            (self.energy, squared(loc)),
            (self.prior_variance, squared(prior_scale)),
        ):
            moments.update(values.mean(-1) if by_latent else values)
        self.kl.update(kl)
        if innovation is not None:
            self.innovation.update(innovation)
        if prior_loc is not None:
            shifted = squared(loc - prior_loc)
            self.shifted_energy.update(shifted.mean(-1) if by_latent else shifted)
        if by_latent and loc.shape[-1] > 1:  # locations of opposite sign would cancel in a mean
            self.latent_loc.update(loc.flatten(-2))
            self.latent_scale.update(scale.flatten(-2))
            self.latent_variance.update(variance.flatten(-2))

    def last(self) -> tuple[Tensor, ...]:
        """Return what there is of the last batch: location, scale, KL, `(..., num_units)` each."""
        known = vars(self)
        return tuple(known[name] for name in _LAST if name in known)

    def follow(self, earlier: tuple[Tensor, ...]) -> None:
        """Put the steps before in front of the last batch, where that is a step of a loop.

        Args:
            earlier: What `last` returned before the step; nothing before the first.
        """
        for name, before in zip(_LAST, earlier, strict=False):
            setattr(self, name, torch.cat([before, getattr(self, name)], -2))

    def merge(self, other: LayerRecord) -> None:
        """Merge the moments of another record of the same layer, for example another process's."""
        for name, moments in vars(self).items():
            if isinstance(moments, StreamingMoments):
                moments.merge(getattr(other, name))

    def to(self, device: torch.device | str) -> LayerRecord:
        """Return the moments, without the last batch, on a device."""
        moved = LayerRecord()
        moved.merge(self)
        for moments in vars(moved).values():
            moments.to(device)
        return moved


class RecordMessenger(Messenger, Mapping[str, LayerRecord]):
    """Record location, scale and KL of every neuron by layer path; see `record`.

    Example:
        >>> len(RecordMessenger())
        0
    """

    def __init__(self) -> None:
        super().__init__()
        self._layers: dict[str, LayerRecord] = {}
        self._mark = object()
        self._pasts = PriorPasts()

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
        if not is_neuron(msg):
            return
        if msg["is_observed"]:
            self._pasts.fix(msg)
            return
        # A two-pass loss replays the model with the guide's infer dictionary: the mark keeps this
        # recorder from counting twice, and no other one from counting.
        marks = msg["infer"].get(_RECORDED, frozenset())
        if self._mark in marks:
            return
        msg["infer"][_RECORDED] = marks | {self._mark}
        # With gradients, since the layer remembers it for whoever asks next.
        posterior = msg["infer"][POSTERIOR]()
        with torch.no_grad():
            layer = self._layers.setdefault(layer_of(msg["name"]), LayerRecord())
            earlier = layer.last() if step_of(msg["name"]) else ()
            present = msg["infer"].get(PRESENT)
            layer.update(*quantities(msg, posterior, self._pasts), present=present)
            layer.follow(earlier)


def record(model: Callable[..., Any] | None = None) -> Any:
    """Record every unit's posterior location and scale and its unweighted KL while a program runs.

    As a context, ``with record() as seen:`` gives a mapping from layer path to `LayerRecord`;
    batches that run inside are merged. It sees guide programs, single-pass losses and plain prior
    runs (there it evaluates the offered posterior); under a two-pass loss each step counts once.
    Records nest: each sees everything that runs inside of it.

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
