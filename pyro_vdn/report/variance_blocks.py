"""What the neurons add to predictive variance: as a whole, by layer and by unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vdn.diagnostics import (
    Decomposition,
    UnitShares,
    decompose_variance,
    plot_decomposition,
    plot_unit_shares,
    unit_shares,
)
from pyro_vdn.report.blocks import picture, table
from pyro_vdn.report.findings import Check, contribution_check
from pyro_vdn.report.markup import Content, Markup, tag
from pyro_vdn.report.words import percent, plus_minus

Program = Callable[..., Any]
_ROWS = 128
_DRAWS = 128
_SHARE_ROWS = 48
_SHARE_DRAWS = 32
_TOKEN_ROWS = 8
_TOKEN_DRAWS = 8


def variance_blocks(
    model: Program, guide: Program, x: Tensor
) -> tuple[tuple[Markup, ...], tuple[Check, ...]]:
    """Decompose the predictive variance of rows, and the neurons' part of it by unit.

    Args:
        model: The neurons.
        guide: Their guide.
        x: Inputs, `(rows, ...)`, of which some are taken.

    Returns:
        What to show, and what was checked.
    """
    parts = decompose_variance(model, guide, _some(x, _ROWS), num_samples=_DRAWS)
    shares = unit_shares(model, guide, _some(x, _SHARE_ROWS), num_samples=_SHARE_DRAWS)
    between = float(parts.between.mean() / parts.total.mean())
    content = (
        tag("h3", "Predictive variance"),
        _parts(parts),
        picture(
            plot_decomposition(parts),
            alt="Predictive variance in two parts, noise of the outcome and spread between draws "
            "of the neurons, and the information that draws hold about the outcome.",
        ),
        layer_table(shares, len(shares.between)),
        picture(
            plot_unit_shares(shares),
            alt="Share of the variance between draws that each unit brings in, by rank.",
        ),
    )
    return content, (contribution_check(between, "predictive variance"),)


def token_variance_blocks(
    model: Program, guide: Program, x: Tensor, layers: Mapping[str, Any]
) -> tuple[Markup, ...]:
    """Return the share of the variance between draws that each layer brings in, for tokens.

    Args:
        model: The neurons.
        guide: Their guide.
        x: Tokens, `(rows, time)`, of which some are taken.
        layers: Random layers by path.
    """
    # Units one by one would take minutes; layers are measured whole without them.
    shares = unit_shares(
        model,
        guide,
        _some(x, _TOKEN_ROWS),
        units=dict.fromkeys(layers, ()),
        num_samples=_TOKEN_DRAWS,
        site="next_token",
    )
    return (tag("h3", "Predictive variance"), layer_table(shares, len(shares.between)))


def layer_table(shares: UnitShares, rows: int) -> Markup:
    """Return a table of what each layer brings into the variance between draws.

    Args:
        shares: What was measured.
        rows: Over how many rows.
    """
    lines: list[list[Content]] = []
    for path in shares.layers:
        lost, alone = shares.layer_lost(path), shares.layer_alone(path)
        lines.append(
            [
                path,
                *(
                    plus_minus(100 * float(one.value), 200 * float(one.error), digits=1) + " %"
                    for one in (lost, alone)
                ),
            ]
        )
    caption = (
        "Share of the variance between draws that is lost when a layer is held at its mean, and "
        f"that is left when all other layers are, ± two standard errors, over {rows} rows."
    )
    return table(caption, ["layer", "lost", "alone"], lines)


def _parts(parts: Decomposition) -> Markup:
    whole = float(parts.total.mean())
    named = {
        "in all": parts.total,
        "noise of the outcome (aleatoric)": parts.aleatoric,
        "between draws of the neurons": parts.between,
    }
    lines: list[list[Content]] = [
        [name, f"{float(value.mean()):.4g}", percent(float(value.mean()) / whole)]
        for name, value in named.items()
    ]
    information = parts.mutual_information
    known = "" if information is None else f" Information: {float(information.mean()):.3g} nats."
    caption = f"Predictive variance in standard units, mean over {len(parts.total)} rows.{known}"
    return table(caption, ["", "variance", "share"], lines)


def _some(x: Tensor, most: int) -> Tensor:
    """Return at most some rows, evenly spread."""
    return x[torch.linspace(0, len(x) - 1, min(most, len(x))).long()]
