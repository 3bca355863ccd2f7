"""The comparison of all methods by the density that they give to what came."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pyro_vdn.diagnostics import compare, plot_compare
from pyro_vdn.report.blocks import picture, table
from pyro_vdn.report.markup import Content, Markup
from pyro_vdn.report.words import with_error


def comparison_blocks(
    densities: Mapping[str, Tensor], blocks: Tensor, *, of: str
) -> tuple[Markup, ...]:
    """Return a table and a picture of held-out densities; nothing for one block, which cannot tell.

    Args:
        densities: Log densities in nats by what each method is called, `(rows,)`.
        blocks: Which block each row is in, from 0, `(rows,)`; rows of one block depend on each
            other.
        of: What the rows are, in words.

    Returns:
        What to show.
    """
    if int(blocks.max()) < 1:
        return ()
    found = compare(densities, blocks=blocks)
    lines: list[list[Content]] = [
        [
            fit.name,
            with_error(fit.elpd, fit.se),
            "" if fit.rank == 0 else with_error(fit.elpd_diff, fit.dse),
            f"{fit.weight:.2f}",
        ]
        for fit in found.fits
    ]
    caption = (
        f"Expected log predictive density (elpd, in nats, summed over {found.rows:,} {of}; high is "
        "good), its difference to the best, both ± one standard error, and weights of the best "
        "mixture (stacking)."
    )
    return (
        table(caption, ["", "elpd", "behind the best", "weight"], lines),
        picture(
            plot_compare(found),
            alt=f"Differences in elpd to the best method, {found.fits[0].name}, with 95 % "
            "intervals, and weights of the best mixture.",
        ),
    )
