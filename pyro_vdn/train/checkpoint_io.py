"""Lightning's checkpoints as safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins import CheckpointIO

from pyro_vdn.train.checkpoint import load_checkpoint, save_checkpoint


class SafetensorsIO(CheckpointIO):
    """A Lightning plugin that writes and reads checkpoints without pickle.

    Example:
        >>> import lightning.pytorch as lightning
        >>> trainer = lightning.Trainer(plugins=[SafetensorsIO()], logger=False, accelerator="cpu")
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint, whole or not at all."""
        save_checkpoint(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint on the CPU; Lightning moves it where it belongs."""
        return load_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)
