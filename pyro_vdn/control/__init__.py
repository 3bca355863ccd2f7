"""The living neuron: controllers that keep units alive, each alone or composed.

A controller observes what `pyro_vdn.poutine.record` saw of a step, then acts between two steps: on
KL weights, on a penalty in the loss, or on the parameters of its layers.
"""

from pyro_vdn.control.band import (
    Band,
    calibration_factor,
    heterogeneous_band,
    hinge,
    homogeneous_band,
    out_of_band,
)
from pyro_vdn.control.band_calibration import BandCalibration
from pyro_vdn.control.compose import Composed, compose
from pyro_vdn.control.controller import Controller
from pyro_vdn.control.energy_band import EnergyBand
from pyro_vdn.control.free_bits import FreeBits, free_bits_cost
from pyro_vdn.control.guard import ScaleGuard, guarded_scale
from pyro_vdn.control.homeostat import Homeostat, homeostatic_gain
from pyro_vdn.control.layers import initial_scale_cost, neuron_layers, scale_cost
from pyro_vdn.control.persistence_share import PersistenceShare, has_memory, share_weight
from pyro_vdn.control.presets import homeostatic, projection_off, projection_on
from pyro_vdn.control.prior_matching import match_priors
from pyro_vdn.control.projection import Projection, projection_gain
from pyro_vdn.control.rescale import Rescaling
from pyro_vdn.control.schedules import KLSchedule, cyclical_warmup, linear_warmup
from pyro_vdn.control.thermostat import Thermostat, range_error, regulated_weight
from pyro_vdn.control.watch import merged_across_processes, watch

__all__ = [
    "Band",
    "BandCalibration",
    "Composed",
    "Controller",
    "EnergyBand",
    "FreeBits",
    "Homeostat",
    "KLSchedule",
    "PersistenceShare",
    "Projection",
    "Rescaling",
    "ScaleGuard",
    "Thermostat",
    "calibration_factor",
    "compose",
    "cyclical_warmup",
    "free_bits_cost",
    "guarded_scale",
    "has_memory",
    "heterogeneous_band",
    "hinge",
    "homeostatic",
    "homeostatic_gain",
    "homogeneous_band",
    "initial_scale_cost",
    "linear_warmup",
    "match_priors",
    "merged_across_processes",
    "neuron_layers",
    "out_of_band",
    "projection_gain",
    "projection_off",
    "projection_on",
    "range_error",
    "regulated_weight",
    "scale_cost",
    "share_weight",
    "watch",
]
