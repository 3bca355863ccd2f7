"""Learned priors in closed form: the moments of what the neurons do."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pyro_vdn.control.layers import Controlled, neuron_layers
from pyro_vdn.errors import InputError
from pyro_vdn.nn import LearnedNormal
from pyro_vdn.poutine import LayerRecord


def match_priors(model: Controlled, records: Mapping[str, LayerRecord]) -> None:
    r"""Set every `LearnedNormal` to the normal that is nearest to its posteriors over rows.

    `m_i = E[mu_i]` and `s_i^2 = Var[mu_i] + E[sigma_i^2]` minimise `E[KL_i]` over all normal priors
    of the unit: the aggregate posterior's moments. So the KL of each row says how unusual a unit's
    state is, whatever weight the KL had in training, zero included. Layers with other priors are
    left alone.

    Args:
        model: A model with neurons, changed in place.
        records: What its layers did on rows of the training data, by path, as `record` collects it.

    Raises:
        InputError: For a layer with a `LearnedNormal` that the records lack.

    Example:
        >>> import torch
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import PosteriorMessenger, record
        >>> layer = VariationalNeurons(3, 4, prior=LearnedNormal())
        >>> with record() as seen, PosteriorMessenger():
        ...     _ = layer(torch.randn(50, 3))
        >>> before = seen[""].kl.mean.sum()
        >>> match_priors(layer, seen)
        >>> with record() as seen, PosteriorMessenger():
        ...     _ = layer(torch.randn(50, 3))
        >>> bool(seen[""].kl.mean.sum() < before)
        True

    Source:
        Tomczak, Welling, *VAE with a VampPrior*, AISTATS 2018, for the aggregate posterior as the
        optimal prior.
    """
    for path, layer in neuron_layers(model).items():
        if not isinstance(layer.prior, LearnedNormal):
            continue
        if path not in records or records[path].loc.count == 0:
            raise InputError(
                "records",
                expected=f"what layer '{path}' did",
                got=f"records of {sorted(records)}",
                hint="`with record() as seen: guide(x)` on rows of the training data",
            )
        layer.prior.assign_(*_moments(records[path]))


def _moments(seen: LayerRecord) -> tuple[Tensor, Tensor]:
    """Return location and scale of the aggregate posterior, of every latent."""
    several = seen.latent_loc.count > 0
    loc = seen.latent_loc if several else seen.loc
    variance = seen.latent_variance if several else seen.variance
    return loc.mean, (loc.variance + variance.mean).sqrt()
