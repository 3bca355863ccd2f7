"""Effect: draw every neuron from the posterior offered at its site."""

from __future__ import annotations

from pyro_vdn.nn.sites import DRAWN, POSTERIOR, PRIOR, Message
from pyro_vdn.poutine.messenger import NeuronMessenger


class PosteriorMessenger(NeuronMessenger):
    """Draw every neuron from its amortized posterior.

    The displaced prior stays in ``infer[PRIOR]``. All other sites keep their own distribution. A
    site that an effect outside this one observes is given its prior back, so that conditioning and
    posterior draws commute.

    Example:
        >>> import pyro, torch
        >>> from pyro_vdn.nn import NormalPosterior, VariationalNeurons
        >>> layer = VariationalNeurons(3, 4, posterior=NormalPosterior(initial_scale=0.1))
        >>> trace = pyro.poutine.trace(PosteriorMessenger()(layer)).get_trace(torch.zeros(5, 3))
        >>> trace.nodes["z"]["fn"].scale[0, 0].item()  # doctest: +ELLIPSIS
        0.1...
    """

    def on_neuron(self, msg: Message) -> None:
        """Put the offered posterior in the place of the prior."""
        if PRIOR in msg["infer"]:
            return
        prior = msg["fn"]
        posterior = msg["infer"][POSTERIOR]()
        if posterior.batch_shape != prior.batch_shape:
            posterior = posterior.expand(prior.batch_shape)
        msg["infer"][PRIOR] = prior
        msg[DRAWN] = True
        msg["fn"] = posterior

    def _pyro_post_sample(self, msg: Message) -> None:
        if msg["is_observed"] and PRIOR in msg["infer"]:
            msg["fn"] = msg["infer"].pop(PRIOR)
