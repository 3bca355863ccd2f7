"""The command ``pyro-vdn``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say what to install where its packages are missing."""
    try:
        from pyro_vdn.cli.app import make_app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        sys.exit(
            f"pyro-vdn: the command line needs the package {error.name}. "
            'Try: pip install "pyro-vdn[train]"'
        )
    make_app()(prog_name="pyro-vdn")
