"""The report on a run: one page of warnings, scores, calibration, checks, pictures and units."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pyro_vdn import __version__
from pyro_vdn.errors import RunFolderError
from pyro_vdn.report import blocks
from pyro_vdn.report.document import document
from pyro_vdn.report.findings import Check
from pyro_vdn.report.markup import Content, Markup, tag, together
from pyro_vdn.report.part import Part
from pyro_vdn.report.style import STYLE
from pyro_vdn.report.training_part import training_part
from pyro_vdn.train.files import read_json, replacing
from pyro_vdn.train.run_folder import METRICS, load_models, read_config
from pyro_vdn.train.tasks import Config, Problem, task_of

_LONGEST = 400
NAME = "report.html"
"""Name of the page in a run's folder."""


def write_report(
    folder: Path,
    out: Path | None = None,
    *,
    num_draws: int = 400,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """Write the report on a complete run: one page of HTML that loads nothing.

    Everything is measured anew from the run's weights and data, with the same noise every time.
    Nothing in the folder changes but the page, which replaces an earlier one.

    Args:
        folder: The run's folder, of forecasting, regression or language.
        out: File of the page; by default ``report.html`` in the folder.
        num_draws: Draws behind predictive checks and pictures, at least 100.
        say: Told what is going on.

    Returns:
        The file.

    Raises:
        RunFolderError: If the folder holds no complete run, its files are damaged, or the page
            cannot be written.
        InputError: If the data have changed or are gone.
    """
    config = read_config(folder)
    out = folder / NAME if out is None else out
    metrics = _metrics(folder, config)
    _check_place(out)
    say("loading the run")
    models = load_models(folder, config)
    problem: Problem = task_of(config.recipe.task).load_again(config, config.recipe)
    parts = [
        *_parts_of(config.recipe.task)(models, problem, num_draws=num_draws, say=say),
        training_part(folder, metrics["models"]),
        _made(folder, config),
    ]
    page = _page(config, metrics, parts)
    with replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out


def _parts_of(task: str) -> Callable[..., list[Part]]:
    """Import what reports on a task; that on text loads what trains, which takes seconds."""
    if task == "language":
        from pyro_vdn.report.language_parts import language_parts

        return language_parts
    from pyro_vdn.report.number_parts import number_parts

    return number_parts


def _metrics(folder: Path, config: Config) -> dict[str, Any]:
    if not (folder / METRICS).exists():
        raise RunFolderError(
            f"{folder}: expected a complete run, got one without {METRICS}. "
            f"Try: pyro-vdn fit {config.recipe.task} --out {folder} --resume"
        )
    return read_json(folder / METRICS)


def _check_place(out: Path) -> None:
    """Refuse to write over anything but a page before a minute is spent on it."""
    if out.is_dir() or (out.exists() and out.suffix.lower() not in (".html", ".htm")):
        raise RunFolderError(
            f"{out}: exists and is no page, nothing was changed. Try: --out report.html"
        )


def _page(config: Config, metrics: Mapping[str, Any], parts: Sequence[Part]) -> str:
    checks = [check for part in parts for check in part.checks]
    title = f"{metrics['data']}: {metrics['task']}"
    return document(
        title,
        STYLE,
        tag(
            "header",
            tag("h1", title),
            *(tag("p", line, class_="about") for line in _about(config, metrics)),
        ),
        tag(
            "main",
            _warnings(checks, {part.anchor: part.heading for part in parts}),
            blocks.contents([(part.anchor, part.heading) for part in parts]),
            tag("p", "A click or a tap enlarges a picture.", class_="fine"),
            *(blocks.section(part.anchor, part.heading, *part.content) for part in parts),
        ),
    )


def _about(config: Config, metrics: Mapping[str, Any]) -> list[str]:
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    source = config.source
    target = f", target {', '.join(source.target)}" if source.target else ""
    return [
        f"Variational distributional neurons, data {Path(source.data).name}{target}",
        f"Tested on {metrics['tested_on']}",
        f"Run of version {config.to_dict()['version']} with seed {config.seed}; report by "
        f"pyro-vdn {__version__}, {written}",
    ]


def _warnings(checks: Sequence[Check], headings: Mapping[str, str]) -> Markup:
    """Return the warnings in words, each with a link to what shows it, and what was checked."""
    found = [
        together(
            f"{sentence[0].upper()}{sentence[1:]}. ",
            tag("a", headings[check.section], href=f"#{check.section}"),
        )
        for check in checks
        for sentence in check.findings
    ]
    clear = [check.looked_at for check in checks if not check.findings]
    rest = f"{'Also checked, nothing found' if found else 'Checked'}: {'; '.join(clear)}."
    below = tag("p", rest, class_="clear") if clear else Markup("")
    above = (
        blocks.bullets(found, class_="warnings")
        if found
        else tag("p", tag("b", "No warnings."), class_="clear")
    )
    heading = f"{len(found)} warning{'' if len(found) == 1 else 's'}" if found else "Warnings"
    return blocks.section("warnings", heading, above, below)


def _made(folder: Path, config: Config) -> Part:
    """Return the section on how the run was made, and how to make it again."""
    settings: list[list[Content]] = [
        [name, value] for name, value in _flat(config.to_dict()) if name != "format"
    ]
    table = blocks.table(
        "Configuration of the run (config.json).", ["setting", "value"], settings, texts=True
    )
    place = shlex.quote(str(folder))
    return Part(
        "made",
        "How it was made",
        (
            blocks.paragraph("Scores and this page again, from the weights and the data:"),
            tag("pre", f"pyro-vdn evaluate {place}\npyro-vdn report {place}"),
            blocks.paragraph("The whole run again, with the same version, in Python:"),
            tag("pre", _AGAIN.format(folder=str(folder))),
            tag("details", tag("summary", f"{len(settings)} settings"), table),
        ),
    )


_AGAIN = """from pathlib import Path
from pyro_vdn.train.run import complete_run, start_run
from pyro_vdn.train.run_folder import read_config

config, again = read_config(Path({folder!r})), Path("again")
problem, config = start_run(config.source, config.recipe, config.seed, again)
complete_run(problem, config, again)"""


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Go through nested settings, with their paths."""
    for name, value in values.items():
        path = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, path)
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield path, text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
