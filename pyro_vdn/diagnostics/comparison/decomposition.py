"""How much of the predictive uncertainty is noise, and how much is in the neurons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from pyro_vdn.diagnostics.comparison._spread import Spread, spread_of
from pyro_vdn.errors import InputError
from pyro_vdn.infer.closed_form import Inputs, batches_of
from pyro_vdn.infer.evaluating import evaluating, own_noise
from pyro_vdn.infer.joint_draws import CHUNK_ELEMENTS, draw_jointly, look_at
from pyro_vdn.infer.own_store import give_own_store
from pyro_vdn.infer.prediction import cat
from pyro_vdn.nn.observed import reads_missing
from pyro_vdn.nn.shapes import check_positive, check_rows

Program = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The parts of predictive uncertainty, by row and output; printed, their means over rows.

    Where rows are sequences, read `(rows, time, outputs)`. Of classes, variances are those of
    their indicators, `(rows, ..., classes)`, and the information is that of the class, `(rows,
    ...)`.

    Args:
        aleatoric: Variance that stays when the neurons are known, `(rows, outputs)`, in squared
            units of the outcome.
        between: Variance between draws of the neurons, `(rows, outputs)`.
        mutual_information: Information of outcome and neurons in nats, `(rows, outputs)`, or None
            where a joint distribution does not know its marginals.
        mutual_information_error: Its standard error over draws.
        num_samples: Number of draws.

    Example:
        >>> parts = Decomposition(torch.full((2, 1), 3.0), torch.ones(2, 1), None, None, 10)
        >>> parts.total[0], parts.share[0]
        (tensor([4.]), tensor([0.2500]))
    """

    aleatoric: Tensor
    between: Tensor
    mutual_information: Tensor | None
    mutual_information_error: Tensor | None
    num_samples: int

    @property
    def total(self) -> Tensor:
        """Predictive variance, the sum of both parts, `(rows, outputs)`."""
        return self.aleatoric + self.between

    @property
    def share(self) -> Tensor:
        """Share of the variance that is between draws, in [0, 1], `(rows, outputs)`."""
        return self.between / self.total

    def __str__(self) -> str:
        lines = [f"variance, mean over {len(self.total)} rows, of {self.num_samples} draws"]
        whole = float(self.total.mean())
        for name in ("total", "aleatoric", "between"):
            part = float(getattr(self, name).mean())
            lines.append(f"  {name:<10} {part:>10.4g}  {100 * part / whole:>5.1f} %")
        if self.mutual_information is not None:
            lines.append(f"mutual information {float(self.mutual_information.mean()):.4g} nats")
        return "\n".join(lines)


def decompose_variance(
    model: Program,
    guide: Program,
    x: Inputs,
    *,
    num_samples: int = 256,
    batch_size: int = 1024,
    seed: int = 0,
    site: str = "y",
) -> Decomposition:
    r"""Split predictive variance into noise of the outcome and spread of the neurons.

    .. math:: \operatorname{Var}[y \mid x] = \mathbb{E}_z \operatorname{Var}[y \mid z]
        + \operatorname{Var}_z \mathbb{E}[y \mid z]

    for draws `z` of all latent sites from the guide. The first part, *aleatoric*, stays when they
    are known; the second is *between draws*, and its estimate is unbiased. Whether it can be
    learned away is another question: neurons are latents of a row, and their posterior may be wide
    because the outcome is noisy.

    Mutual information says the same without moments, and so for classes too:

    .. math:: I(y; z) = H\Big[\frac1S \sum_s p(y \mid z_s)\Big] - \frac1S \sum_s H[p(y \mid z_s)]
        = \frac1S \sum_s \operatorname{KL}\Big(p(y \mid z_s) \,\Big\|\, \frac1S \sum_r
        p(y \mid z_r)\Big)

    for each output (and step) by itself. Given the draws it is exact for classes, a sum over
    counts, and an integral by quadrature otherwise, where a tail beyond 8 standard deviations is
    left out, and so is much of a density that is infinite at an edge, such as a gamma's of shape
    below 1; its error is that of the draws. It is at most :math:`\log S`, and biased low: in the
    normal case, where :math:`I = \frac12 \log(1 + r)` for a ratio `r` of between to aleatoric
    variance, by about :math:`r / 2S` as long as that is small.

    Args:
        model: A Pyro program with rows in the outermost plate, called as ``model(*x)``. Any
            likelihood of finite variance will do.
        guide: Its guide.
        x: Inputs, `(rows, ...)`, or several of them.
        num_samples: Draws per row, at least 2: the relative error of the variance between draws is
            about :math:`\sqrt{2 / S}` in each row, that of a mean over rows far smaller.
        batch_size: Most rows at once; fewer where all their draws would take much memory.
        seed: Seed of the draws; the caller's random state is untouched.
        site: Name of the outcome's site.

    Returns:
        The parts by row and output.

    Raises:
        InputError: For fewer than two draws, an unknown site, an outcome without finite variance,
            or inputs as `predict` refuses them.

    Example:
        >>> from pyro_vdn.guides import NeuronGuide
        >>> from pyro_vdn.models import Regression
        >>> model = Regression(3, num_units=4)
        >>> parts = decompose_variance(model, NeuronGuide(model), torch.randn(50, 3))
        >>> parts.total.shape, parts.mutual_information.shape
        (torch.Size([50, 1]), torch.Size([50, 1]))
        >>> bool((parts.between < parts.total).all())
        True

    Source: Depeweg, Hernandez-Lobato, Doshi-Velez and Udluft, *Decomposition of Uncertainty in
    Bayesian Deep Learning*, ICML 2018.
    """
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    check_positive(num_samples=num_samples, batch_size=batch_size)
    check_rows(inputs, None, missing_allowed=reads_missing(model))
    if num_samples < 2:
        raise InputError("num_samples", expected="at least 2", got="1", hint="num_samples=256")
    give_own_store(model, guide)
    with own_noise(seed), evaluating(model, guide), torch.no_grad():
        look, shared = look_at(model, inputs), Trace()
        rows = max(1, min(batch_size, CHUNK_ELEMENTS // (num_samples * look.width)))
        parts = [
            spread_of(
                draw_jointly(
                    model, guide, batch, num_samples, site=site, shared=shared, look=look
                ).outcome["fn"]
            )
            for batch, _ in batches_of(inputs, None, rows)
        ]
    whole = _joined(parts)
    return Decomposition(
        whole.aleatoric, whole.between, whole.information, whole.error, num_samples
    )


def _joined(parts: list[Spread]) -> Spread:
    """Return the spread of all rows, given that of batches."""
    return Spread(*(cat(list(values)) for values in zip(*parts, strict=True)))
