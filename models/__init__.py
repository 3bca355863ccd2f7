"""Complete Pyro models built from distributional neurons."""

from pyro_vdn.models.forecasting import Forecaster
from pyro_vdn.models.regression import Regression

__all__ = ["Forecaster", "Regression"]
