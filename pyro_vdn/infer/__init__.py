"""Losses, SVI and prediction."""

from pyro_vdn.infer.closed_form import predict_closed_form
from pyro_vdn.infer.forecast import forecast
from pyro_vdn.infer.generate import TokenReading, generate, read_tokens
from pyro_vdn.infer.local_elbo import LocalELBO
from pyro_vdn.infer.log_density import log_density
from pyro_vdn.infer.loss import Terms
from pyro_vdn.infer.pacm_elbo import PACmELBO
from pyro_vdn.infer.pooled import pooled
from pyro_vdn.infer.predict import predict
from pyro_vdn.infer.prediction import ClosedForm, Prediction
from pyro_vdn.infer.sampler import sampler
from pyro_vdn.infer.svi import SVI
from pyro_vdn.infer.token_draws import TokenDraws, token_draws

__all__ = [
    "SVI",
    "ClosedForm",
    "LocalELBO",
    "PACmELBO",
    "Prediction",
    "Terms",
    "TokenDraws",
    "TokenReading",
    "forecast",
    "generate",
    "log_density",
    "pooled",
    "predict",
    "predict_closed_form",
    "read_tokens",
    "sampler",
    "token_draws",
]
