"""Rescaling the units of a layer, with or without a word to what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from pyro_vdn.control.checks import check_paths
from pyro_vdn.errors import InputError
from pyro_vdn.nn import ConditionalNormal, LinearReadout, NormalPosterior, VariationalNeurons

#: What reads a layer's output linearly, or after a relu.
Reader: TypeAlias = nn.Linear | LinearReadout | VariationalNeurons
Readers: TypeAlias = Mapping[str, Reader | Sequence[Reader]]
_READERS = (nn.Linear, LinearReadout, VariationalNeurons)


class Rescaling:
    r"""Multiplies each unit's location by a gain; compensated, its scale as well.

    Without compensation `mu_i` becomes `g_i mu_i` and the computed function jumps. With it
    `sigma_i` becomes `g_i sigma_i` too, so that `z_i` turns into `g_i z_i`, and whatever reads
    `z_i` divides its weight by `g_i`: through a linear map, or a relu and a linear map, the
    function stays what it was, draws included. Only the KL changes. (Exact for a scale per unit
    above its floor; for one that depends on the input, exact where it has its mean.)

    A unit's scale is not multiplied beyond its prior's: of a unit that has become its prior only
    the noise could be made louder, at a KL without bound. Compensated, such a unit keeps its gain
    of at most 1; an `EnergyBand`, or no compensation, can lift it.

    Args:
        layers: Layers by path.
        compensate: By layer path, what reads the layer: linear maps, readouts or layers of neurons;
            all of them, one or several. A layer that is not named is not compensated; None
            compensates none.

    Raises:
        InputError: For layers that cannot be rescaled, or readers that do not fit.

    Example:
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3)
        >>> rescaling = Rescaling({"neurons": model.neurons}, {"neurons": model.readout})
        >>> gain = rescaling("neurons", torch.full((50,), 2.0), torch.full((50,), 0.3))
        >>> round(model.neurons.posterior(torch.zeros(1, 3)).scale[0, 0].item(), 3)
        0.6
    """

    def __init__(
        self, layers: Mapping[str, VariationalNeurons], compensate: Readers | None
    ) -> None:
        self.posteriors = {path: _posterior_of(path, layer) for path, layer in layers.items()}
        self.layers = layers
        self.readers: dict[str, list[Reader]] = {}
        check_paths("compensate", compensate or {}, layers)
        for path, given in (compensate or {}).items():
            self.readers[path] = _readers(path, given)
            _check_fit(path, layers[path], self.readers[path])

    def compensates(self, path: str) -> bool:
        """Say whether the scales of a layer follow, and its readers divide.

        Args:
            path: Path of the layer.
        """
        return path in self.readers

    @torch.no_grad()
    def __call__(
        self, path: str, gain: Tensor, mean_scale: Tensor, prior_scale: Tensor | None = None
    ) -> Tensor:
        """Multiply the units of a layer by their gains, in place.

        Args:
            path: Path of the layer.
            gain: Factors, positive, `(num_units,)`.
            mean_scale: Mean scale of each unit over rows, `(num_units,)`; compensated, a unit of
                which it is not known, NaN, stays as it is.
            prior_scale: Scale of its prior, `(num_units,)`; None where that is not known, and so no
                bound.

        Returns:
            The factors that were applied, `(num_units,)`.
        """
        posterior = self.posteriors[path]
        if path not in self.readers:
            posterior.multiply_loc_(gain)
            return gain
        if prior_scale is not None:
            # A prior scale that is not known, such as that of a prior without one, is no bound.
            bound = (prior_scale / mean_scale).clamp(min=1).nan_to_num(torch.inf)
            gain = torch.minimum(gain, bound)
        known = gain.isfinite() & mean_scale.isfinite()
        gain, mean_scale = (torch.where(known, one, 1.0) for one in (gain, mean_scale))
        posterior.multiply_loc_(gain)
        posterior.multiply_scale_(gain, mean_scale)
        for reader in self.readers[path]:
            for weight in _weights(reader):
                copies = weight.shape[-1] // len(gain)  # several latents of a unit, side by side
                weight.div_(gain.repeat_interleave(copies))
        decoder = self.layers[path].local_decoder
        if decoder is not None:
            decoder.weight.div_(gain if decoder.weight.dim() == 1 else gain.unsqueeze(-1))
        return gain


def _posterior_of(path: str, layer: VariationalNeurons) -> NormalPosterior:
    posterior = layer.posterior
    if not isinstance(posterior, NormalPosterior) or posterior.loc_mode == "identity":
        got = type(posterior).__name__
        if isinstance(posterior, NormalPosterior):
            got += "(loc='identity')"
        raise InputError(
            f"layer '{path}'",
            expected="a NormalPosterior whose location is linear, to rescale its rows",
            got=got,
            hint="NormalPosterior(loc='linear'), or a penalty: EnergyBand",
        )
    return posterior


def _readers(path: str, given: Reader | Sequence[Reader]) -> list[Reader]:
    readers = list(given) if isinstance(given, Sequence) else [given]
    known = [one for one in readers if isinstance(one, _READERS)]
    if len(known) == len(readers) == len({id(one) for one in readers}) > 0:
        return readers
    raise InputError(
        f"compensate of layer '{path}'",
        expected="what reads the layer, each once: nn.Linear, LinearReadout or VariationalNeurons",
        got=", ".join(type(one).__name__ for one in readers) or "nothing",
        hint=f'compensate={{"{path}": model.readout}}',
    )


def _check_fit(path: str, layer: VariationalNeurons, readers: Sequence[Reader]) -> None:
    shape = layer.shape
    width = shape.num_units * (shape.latent_dim if layer.pool == "flatten" else 1)
    for reader in readers:
        widths = {weight.shape[-1] for weight in _weights(reader)}
        if widths != {width}:
            raise InputError(
                f"compensate of layer '{path}'",
                expected=f"readers of its {width} outputs",
                got=f"{type(reader).__name__} of {sorted(widths)} inputs",
                hint="name what reads this layer, after a relu or directly",
            )
    posterior = layer.posterior
    assert isinstance(posterior, NormalPosterior)
    if posterior.scale_mode == "shared":
        raise InputError(
            f"compensate of layer '{path}'",
            expected="scales that can follow their units",
            got="one scale shared by all units",
            hint='NormalPosterior("unit"), or no compensation',
        )


def _weights(reader: Reader) -> list[Tensor]:
    """Return the tensors of which each column belongs to one input."""
    if isinstance(reader, nn.Linear):
        return [reader.weight]
    if isinstance(reader, LinearReadout):
        return [reader.linear.weight]
    posterior, prior = reader.posterior, reader.prior
    if not (isinstance(posterior, NormalPosterior) and isinstance(posterior.loc, nn.Linear)):
        return []  # it reads the layer in ways that no weight undoes
    head = posterior.raw_scale
    first = head[0] if isinstance(head, nn.Sequential) else head
    weights = [posterior.loc.weight, *([first.weight] if isinstance(first, nn.Linear) else [])]
    if isinstance(prior, ConditionalNormal):
        weights += [prior.loc.weight, prior.raw_scale.weight]
    if reader.local_decoder is not None:
        weights.append(reader.local_decoder.projection)
    return weights
