"""Losses, SVI and prediction."""

from pyro_vdn.infer.local_elbo import LocalELBO
from pyro_vdn.infer.loss import Terms
from pyro_vdn.infer.pacm_elbo import PACmELBO
from pyro_vdn.infer.svi import SVI

__all__ = ["SVI", "LocalELBO", "PACmELBO", "Terms"]
