"""What is optional about Lightning: its import, and its loggers."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from pyro_vdn.diagnostics import MissingPackageError

LOGS = "logs"


def import_lightning() -> ModuleType:
    """Import Lightning when it is first needed.

    Returns:
        The module ``lightning.pytorch``.

    Raises:
        MissingPackageError: If it is not installed.

    Example:
        >>> import_lightning().__name__
        'lightning.pytorch'
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies announce their own deprecations
            importlib.import_module("safetensors.torch")
            return importlib.import_module("lightning.pytorch")
    except ImportError as error:
        raise MissingPackageError(
            f"fit needs Lightning and safetensors ({error}). "
            'Try: pip install "pyro-vdn[train]"; or a loop over pyro_vdn.infer.SVI.'
        ) from error


def make_loggers(folder: Path, step: int) -> list[Any]:
    """Return a CSV logger and, where TensorBoard is installed, its logger.

    Args:
        folder: The run's folder; logs go to ``logs/from_step_<step>``.
        step: Step from which the run starts, so that a resumed run keeps the logs before it.

    Returns:
        The loggers.
    """
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    place = {"save_dir": str(folder), "name": LOGS, "version": f"from_step_{step}"}
    loggers: list[Any] = [CSVLogger(**place)]
    if importlib.util.find_spec("tensorboard") is not None:
        loggers.append(TensorBoardLogger(**place))
    return loggers
