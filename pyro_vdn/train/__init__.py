"""Training runs on Lightning: `fit`, evaluation, recipes and run folders (extra ``train``)."""

from pyro_vdn.train.checkpoint import load_checkpoint, save_checkpoint
from pyro_vdn.train.default_loss import default_loss
from pyro_vdn.train.evaluate import Evaluation, Metrics, evaluate, evaluate_fully
from pyro_vdn.train.fit import FitResult, fit
from pyro_vdn.train.options import FitOptions
from pyro_vdn.train.parameters import count_parameters

__all__ = [
    "Evaluation",
    "FitOptions",
    "FitResult",
    "Metrics",
    "count_parameters",
    "default_loss",
    "evaluate",
    "evaluate_fully",
    "fit",
    "load_checkpoint",
    "save_checkpoint",
]
