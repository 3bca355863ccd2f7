"""Effects on models with distributional neurons.

Each is a context manager and a wrapper of an unchanged model.
"""

from pyro_vdn.poutine.autoregressive_cost import autoregressive_cost, window_scale
from pyro_vdn.poutine.average import AverageMessenger, average_draws
from pyro_vdn.poutine.averaged import Averaged
from pyro_vdn.poutine.clamp import ClampMessenger, Held, clamp
from pyro_vdn.poutine.deterministic import DeterministicMessenger, deterministic
from pyro_vdn.poutine.dropout import DropoutMessenger, DroppedOut, dropout
from pyro_vdn.poutine.kl_weight import KLWeightMessenger, kl_weight
from pyro_vdn.poutine.messenger import NeuronMessenger
from pyro_vdn.poutine.noise import NoiseMessenger, fix_noise, scale_noise
from pyro_vdn.poutine.penalty import Cost, PenaltyMessenger, penalize
from pyro_vdn.poutine.posterior import PosteriorMessenger
from pyro_vdn.poutine.record import LayerRecord, RecordMessenger, StreamingMoments, record
from pyro_vdn.poutine.share_noise import ShareNoiseMessenger, share_noise

__all__ = [
    "AverageMessenger",
    "Averaged",
    "ClampMessenger",
    "Cost",
    "DeterministicMessenger",
    "DropoutMessenger",
    "DroppedOut",
    "Held",
    "KLWeightMessenger",
    "LayerRecord",
    "NeuronMessenger",
    "NoiseMessenger",
    "PenaltyMessenger",
    "PosteriorMessenger",
    "RecordMessenger",
    "ShareNoiseMessenger",
    "StreamingMoments",
    "autoregressive_cost",
    "average_draws",
    "clamp",
    "deterministic",
    "dropout",
    "fix_noise",
    "kl_weight",
    "penalize",
    "record",
    "scale_noise",
    "share_noise",
    "window_scale",
]
