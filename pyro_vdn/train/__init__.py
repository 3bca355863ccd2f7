"""Training runs: `fit` on Lightning, checkpoints, evaluation, recipes and run folders (extra ``train``)."""

from pyro_vdn.train.fit import FitResult, fit
from pyro_vdn.train.options import FitOptions

__all__ = ["FitOptions", "FitResult", "fit"]
