"""What the neurons of a run do: which live, how far from their prior, how much they add."""

from __future__ import annotations

from collections.abc import Mapping

from pyro_vdn.diagnostics import (
    CollapseMode,
    CollapseReport,
    UnitStatistics,
    collapse_report,
    latent_usage,
    plot_collapse,
    plot_contraction,
    plot_unit_activity,
)
from pyro_vdn.report.blocks import paragraph, picture, table
from pyro_vdn.report.findings import Check, collapse_check
from pyro_vdn.report.markup import Content, Markup
from pyro_vdn.report.part import Part
from pyro_vdn.report.words import known


def neurons_part(
    layers: Mapping[str, UnitStatistics],
    more: tuple[Markup, ...] = (),
    checks: tuple[Check, ...] = (),
) -> Part:
    """Return the section on the units.

    Args:
        layers: Statistics of every random layer by path.
        more: Further content, such as what they add to predictive variance.
        checks: Further checks.
    """
    heading = "What the neurons do"
    if not layers:
        said = paragraph("No layer of neurons is random.", *more)
        return Part("neurons", heading, (said,), checks)
    report = collapse_report(layers)
    last = list(layers)[-1]
    content = [
        _modes(report),
        picture(plot_collapse(report), alt=_counted(report)),
        _usage(layers),
        picture(
            plot_unit_activity(layers[last]),
            alt=f"KL of the units of layer {last} by rank, and against their energy and scale.",
            caption=f"Units of layer {last}.",
        ),
        picture(
            plot_contraction(layers),
            alt="Histograms of posterior contraction, a panel for each layer.",
            caption="Contraction is 1 where the posterior is a point, 0 where it is as wide as "
            "the prior.",
        ),
        *more,
    ]
    return Part("neurons", heading, tuple(content), (collapse_check(report), *checks))


def _modes(report: CollapseReport) -> Markup:
    lines: list[list[Content]] = []
    for mode, count in report.counts().items():
        if count or mode is CollapseMode.LIVING:
            typical = report.typical(mode)
            lines.append(
                [
                    mode.value,
                    f"{count}",
                    "" if typical is None else f"{typical.evidence}",
                    mode.remedy,
                ]
            )
    rows = max(s.rows for s in report.statistics.values())
    caption = f"What has become of {len(report.calls)} units, over {rows:,} rows."
    return table(caption, ["", "units", "a typical one", "try"], lines, texts=True)


def _usage(layers: Mapping[str, UnitStatistics]) -> Markup:
    lines: list[list[Content]] = [
        [
            path,
            f"{used.units}",
            f"{used.kl_per_unit:.3g}",
            f"{100 * used.active_share:.0f} %",
            known(float(used.by_unit["information"].mean()), ".3g"),
            f"{used.contraction:.3f}",
            f"{used.mu2:.3g}",
            f"{used.scale:.3g}",
        ]
        for path, used in latent_usage(layers).items()
    ]
    head = ["layer", "units", "KL", "active", "information", "contraction", "energy", "scale"]
    caption = (
        "Means over the units of each layer; KL and information in nats per unit. Active is a KL "
        "above 0.0001 nats; energy is E[μ²]."
    )
    return table(caption, head, lines)


def _counted(report: CollapseReport) -> str:
    counts = [f"{count} {mode.value}" for mode, count in report.counts().items() if count]
    return f"Units by what has become of them: {', '.join(counts)}; their KL, scale and use."
