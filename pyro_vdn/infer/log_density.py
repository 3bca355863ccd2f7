"""The log predictive density of targets: in closed form, or of the mixture over draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_vdn.infer.closed_form import Inputs, batches_of, closed_form_of, has_closed_form
from pyro_vdn.infer.joint_draws import chunks_of_draws, look_at
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.prediction import cat, draw_log_probs, joined_forms
from pyro_vdn.infer.single_pass import Program
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive, check_rows


def log_density(
    model: Program,
    guide: Program,
    x: Inputs,
    y: Tensor,
    *,
    num_samples: int = 32,
    batch_size: int = 1024,
    site: str = "y",
) -> tuple[Tensor | None, Tensor]:
    """Return the log predictive density of targets, per output and joint.

    It is in closed form where the model offers one, else that of the mixture over draws, a bounded
    number of which is held at once.

    Args:
        model: A Pyro program with rows at dim -2.
        guide: Its guide.
        x: Inputs, `(rows, ...)`, or several of them.
        y: Targets, `(rows, outputs)` or `(rows, time, outputs)`.
        num_samples: Number of draws where there is no closed form.
        batch_size: Most rows at once.
        site: Name of the outcome's site.

    Returns:
        Densities of the shape of the targets, NaN where they are, or None where a joint
        distribution does not know its marginals; and `(rows,)`.

    Raises:
        InputError: As `predict` does.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model, x, y = Regression(3), torch.zeros(5, 3), torch.zeros(5, 1)
        >>> per_output, joint = log_density(model, NeuronGuide(model), x, y)
        >>> torch.allclose(per_output[:, 0], joint)
        True
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    check_positive(num_samples=num_samples, batch_size=batch_size)
    check_rows(inputs, y, missing_allowed=reads_missing(model))
    give_own_store(model, guide)
    with torch.no_grad():
        rows = look_at(model, inputs).rows_at_once(inputs, batch_size)
        first = [value[:rows] for value in inputs]
        if not has_closed_form(model, guide, first, site=site):
            return _mixture(model, guide, inputs, y, num_samples, batch_size, site)
        forms = [
            closed_form_of(model, guide, batch, target, 0, site)
            for batch, target in batches_of(inputs, y, batch_size)
        ]
    form = joined_forms(forms)
    assert form is not None
    assert form.log_prob_joint is not None
    return form.log_prob_per_output, form.log_prob_joint


def _mixture(
    model: Program,
    guide: Program,
    inputs: Sequence[Tensor],
    y: Tensor,
    num_samples: int,
    batch_size: int,
    site: str,
) -> tuple[Tensor | None, Tensor]:
    """Return the densities of the mixture over draws, of which a few are held at once."""
    sums: dict[int, _Sums] = {}  # by first row
    for chunk in chunks_of_draws(
        model, guide, inputs, num_samples, batch_size=batch_size, site=site
    ):
        per_output, joint = draw_log_probs(chunk.values.outcome["fn"], y[chunk.rows])
        more = _Sums(None if per_output is None else per_output.logsumexp(0), joint.logsumexp(0))
        before = sums.get(chunk.rows.start)
        sums[chunk.rows.start] = more if before is None else before.plus(more)
    scale = math.log(num_samples)
    outputs = cat([part.per_output for part in sums.values()])
    joint = torch.cat([part.joint for part in sums.values()]) - scale
    return None if outputs is None else outputs - scale, joint


class _Sums(NamedTuple):
    """Logs of densities summed over draws."""

    per_output: Tensor | None
    joint: Tensor

    def plus(self, more: _Sums) -> _Sums:
        """Return the sums over the draws of both."""
        outputs = None
        if self.per_output is not None and more.per_output is not None:
            outputs = torch.logaddexp(self.per_output, more.per_output)
        return _Sums(outputs, torch.logaddexp(self.joint, more.joint))
