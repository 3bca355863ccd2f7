"""Variational distributional neurons for Pyro."""

from pyro_vdn.errors import (
    InputError,
    NoTrainingError,
    OneSidedEffectError,
    RunFolderError,
    VDNError,
)

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "NoTrainingError",
    "OneSidedEffectError",
    "RunFolderError",
    "VDNError",
    "__version__",
]
