"""Starting and continuing the runs of ``pyro-vdn fit``, whatever their task."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from pyro_vdn.cli.errors import Stopped

_OPTIONS = {"num_units": "--units"}


def start_run(source: Any, recipe: Any, seed: int, out: Path | None) -> None:
    """Start a run and see it through.

    Args:
        source: Where the data come from.
        recipe: Every hyper-parameter.
        seed: Seed of the run.
        out: Its folder; by default one is made of task, data and time.
    """
    from pyro_vdn.train import run

    if out is None:
        stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
        out = Path("runs") / f"{recipe.task}-{source.name}-{stamp}"
    problem, config = run.start_run(source, recipe, seed, out)
    _complete(problem, config, out)


def resume_run(out: Path | None, task: str, given: dict[str, Any]) -> None:
    """Continue an interrupted run with its own settings.

    Args:
        out: Its folder.
        task: What the command is for.
        given: Settings that were given beside it, which are refused.
    """
    from pyro_vdn.errors import InputError
    from pyro_vdn.train import run

    if out is None:
        raise InputError(
            "--out", expected="the folder of the run", got="none", hint="--resume --out DIR"
        )
    for name, value in given.items():
        if value not in (None, []):
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise InputError(
                option,
                expected="no settings beside --resume and --out: the run keeps its own",
                got=f"{option} {value}",
                hint=f"pyro-vdn fit {task} --out {out} --resume",
            )
    problem, config = run.resume_run(out)
    if problem.recipe.task != task:
        raise InputError(
            str(out),
            expected=f"a run of {task}",
            got=f"one of {problem.recipe.task}",
            hint=f"pyro-vdn fit {problem.recipe.task} --out {out} --resume",
        )
    _complete(problem, config, out)


def _complete(problem: Any, config: Any, out: Path) -> None:
    from pyro_vdn.cli.table import show_report
    from pyro_vdn.train.run import Interrupted, complete_run

    try:
        report = complete_run(
            problem, config, out, say=lambda message: typer.echo(message, err=True)
        )
    except Interrupted as stop:
        command = f"pyro-vdn fit {problem.recipe.task} --out {out} --resume"
        raise Stopped(out, stop.kept, command) from stop
    show_report(report)
