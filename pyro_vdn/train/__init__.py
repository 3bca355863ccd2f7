"""Training runs on Lightning: `fit`, evaluation, recipes and run folders (extra ``train``)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_vdn.train.checkpoint import load_checkpoint, save_checkpoint
from pyro_vdn.train.default_loss import default_loss
from pyro_vdn.train.evaluate import Evaluation, Metrics, evaluate, evaluate_fully, evaluate_pooled
from pyro_vdn.train.evaluate_tokens import (
    TokenEvaluation,
    evaluate_token_draws,
    evaluate_tokens,
    fit_token_temperature,
)
from pyro_vdn.train.fit import FitResult, fit
from pyro_vdn.train.lightning import import_lightning
from pyro_vdn.train.members import Member
from pyro_vdn.train.options import FitOptions
from pyro_vdn.train.parameters import count_parameters
from pyro_vdn.train.pooled_tokens import evaluate_pooled_tokens
from pyro_vdn.train.row_scores import standard_errors
from pyro_vdn.train.run_folder import load_model, load_models

if TYPE_CHECKING:
    from pyro_vdn.train.anneal import Anneal
    from pyro_vdn.train.control import ControlCallback
    from pyro_vdn.train.history import HistoryCallback
    from pyro_vdn.train.prior_matching import MatchPriors

__all__ = [
    "Anneal",
    "ControlCallback",
    "Evaluation",
    "FitOptions",
    "FitResult",
    "HistoryCallback",
    "MatchPriors",
    "Member",
    "Metrics",
    "TokenEvaluation",
    "count_parameters",
    "default_loss",
    "evaluate",
    "evaluate_fully",
    "evaluate_pooled",
    "evaluate_pooled_tokens",
    "evaluate_token_draws",
    "evaluate_tokens",
    "fit",
    "fit_token_temperature",
    "load_checkpoint",
    "load_model",
    "load_models",
    "save_checkpoint",
    "standard_errors",
]

_CALLBACKS = {
    "Anneal": "anneal",
    "ControlCallback": "control",
    "HistoryCallback": "history",
    "MatchPriors": "prior_matching",
}


def __getattr__(name: str) -> Any:
    """Import a callback, and Lightning with it, when it is first asked for."""
    if name not in _CALLBACKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_lightning()
    return getattr(import_module(f"{__name__}.{_CALLBACKS[name]}"), name)
