"""Scores, calibration, unit activity and figures; reads tensors and arrays only."""

from pyro_vdn.diagnostics._arviz import ArviZData
from pyro_vdn.diagnostics._figure import MissingPackageError, save
from pyro_vdn.diagnostics.activity import ACTIVE_THRESHOLD, UnitActivity, unit_activity
from pyro_vdn.diagnostics.calibration import CalibrationCurve, calibration_curve, pit
from pyro_vdn.diagnostics.netcdf import load_netcdf, save_netcdf
from pyro_vdn.diagnostics.plots import FAN_LEVELS, plot_calibration, plot_fan, plot_unit_activity
from pyro_vdn.diagnostics.quantiles import (
    Interval,
    central_interval,
    coverage,
    draw_quantiles,
    interval_width,
)
from pyro_vdn.diagnostics.scores import (
    crps_draws,
    crps_normal,
    energy_score,
    mixture_log_density,
    pinball,
)
from pyro_vdn.diagnostics.to_arviz import SAMPLE_GROUPS, to_arviz

__all__ = [
    "ACTIVE_THRESHOLD",
    "FAN_LEVELS",
    "SAMPLE_GROUPS",
    "ArviZData",
    "CalibrationCurve",
    "Interval",
    "MissingPackageError",
    "UnitActivity",
    "calibration_curve",
    "central_interval",
    "coverage",
    "crps_draws",
    "crps_normal",
    "draw_quantiles",
    "energy_score",
    "interval_width",
    "load_netcdf",
    "mixture_log_density",
    "pinball",
    "pit",
    "plot_calibration",
    "plot_fan",
    "plot_unit_activity",
    "save",
    "save_netcdf",
    "to_arviz",
    "unit_activity",
]
