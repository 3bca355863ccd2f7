"""Effects on models with distributional neurons.

Each is a context manager and a wrapper of an unchanged model.
"""

from pyro_vdn.poutine.autoregressive_cost import autoregressive_cost, window_scale
from pyro_vdn.poutine.clamp import ClampMessenger, Held, clamp
from pyro_vdn.poutine.deterministic import DeterministicMessenger, deterministic
from pyro_vdn.poutine.dropout import DropoutMessenger, DroppedOut, dropout
from pyro_vdn.poutine.kl_weight import KLWeightMessenger, kl_weight
from pyro_vdn.poutine.messenger import NeuronMessenger
from pyro_vdn.poutine.penalty import Cost, PenaltyMessenger, penalize
from pyro_vdn.poutine.posterior import PosteriorMessenger
from pyro_vdn.poutine.record import LayerRecord, RecordMessenger, StreamingMoments, record

__all__ = [
    "ClampMessenger",
    "Cost",
    "DeterministicMessenger",
    "DropoutMessenger",
    "DroppedOut",
    "Held",
    "KLWeightMessenger",
    "LayerRecord",
    "NeuronMessenger",
    "PenaltyMessenger",
    "PosteriorMessenger",
    "RecordMessenger",
    "StreamingMoments",
    "autoregressive_cost",
    "clamp",
    "deterministic",
    "dropout",
    "kl_weight",
    "penalize",
    "record",
    "window_scale",
]
