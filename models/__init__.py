"""Complete Pyro models built from distributional neurons."""

from pyro_vdn.models.deep import DeepRegression
from pyro_vdn.models.forecasting import Forecaster
from pyro_vdn.models.language import VariationalGPT
from pyro_vdn.models.regression import Regression
from pyro_vdn.models.single import SingleNeuron
from pyro_vdn.models.temporal import StateSpace

__all__ = [
    "DeepRegression",
    "Forecaster",
    "Regression",
    "SingleNeuron",
    "StateSpace",
    "VariationalGPT",
]
