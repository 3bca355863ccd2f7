"""Errors of the library as one paragraph and an exit code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import typer

BAD_INPUT = 2
INTERRUPTED = 130

P = ParamSpec("P")
T = TypeVar("T")


def reported(command: Callable[P, T]) -> Callable[P, T]:
    """Turn what a command raises on purpose into a message on standard error and an exit code.

    Args:
        command: The function behind a command.

    Returns:
        It, ending with code 2 after a `VDNError` and with 130 after Ctrl-C.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        from pyro_vdn.errors import VDNError

        try:
            return command(*args, **kwargs)
        except VDNError as error:
            typer.secho(f"pyro-vdn: {error}", err=True, fg="red")
            raise typer.Exit(BAD_INPUT) from error
        except KeyboardInterrupt as stop:
            typer.secho(f"pyro-vdn: {_interrupted(stop)}", err=True, fg="yellow")
            raise typer.Exit(INTERRUPTED) from stop

    return run


class Stopped(KeyboardInterrupt):
    """Ctrl-C in a run that can be continued.

    Args:
        folder: The run's folder.
        kept: File of the best weights, or None.
        command: The command that continues it.
    """

    def __init__(self, folder: Path, kept: Path | None, command: str) -> None:
        super().__init__()
        self.message = (
            f"interrupted. The best weights so far are in {kept}. Continue with: {command}"
            if kept
            else f"interrupted before the first evaluation. Start again with: {command}"
        )


def _interrupted(stop: KeyboardInterrupt) -> str:
    return stop.message if isinstance(stop, Stopped) else "interrupted"
