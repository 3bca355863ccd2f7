"""A cost on how far units move from step to step: the autoregressive penalty between windows."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_vdn.errors import InputError
from pyro_vdn.nn.chain import GaussianChain
from pyro_vdn.nn.lags import covariances, widened
from pyro_vdn.nn.shapes import check_choice
from pyro_vdn.poutine.penalty import Cost

On = Literal["loc", "sample"]


def autoregressive_cost(
    phi: float | Tensor = 0.95,
    *,
    scale: float | Tensor,
    on: On = "loc",
    weight: float | Tensor = 1.0,
) -> Cost:
    r"""Return a cost per unit on moving otherwise than by `z_t = phi z_{t-1}`, for `penalize`.

    For a layer on `(..., time, features)`, whatever its prior, unit `i` pays

    `C_i = weight * (time - 1) / time * mean((m_t - phi m_{t-1})^2) / (2 s^2)`,

    the mean over rows and consecutive steps, `m` the posterior locations. The factor counts the
    pairs: a penalty stands once per row, step and unit, so a sequence of `time` steps pays the sum
    over its `time - 1` pairs. With ``on="sample"`` the square is that of draws, in closed form:
    `E_q[(z_t - phi z_{t-1})^2]`, which adds `s_t^2 + phi^2 s_{t-1}^2 - 2 phi Cov_q(z_t, z_{t-1})`.

    That is the cross term of a chain: `-E_q log Normal(z_t; phi z_{t-1}, s^2)`, summed over steps
    after the first, is the sum of costs plus `log s + log(2 pi) / 2` a pair. Beside a standard
    normal prior, of which each step pays its own KL, it pulls the steps together; as a prior, which
    is one joint density, the same chain is `AutoregressiveNormal`.

    The published form compares the window of a forecast with the one a stride of 4 steps earlier:
    two steps, whose input is ``torch.stack([earlier, current], -2)``. Its settings are `phi` 0.95
    and `window_scale` of the energy band; its loss takes the mean over units where this takes their
    sum, hence `weight / num_units` for the same size, and charges the KL of the current window
    alone: ``kl_weight(model, {"neurons": torch.tensor([[0.0], [beta]])})``.

    A cost does not know which steps have input: a missing one counts as a step at its prior.

    Args:
        phi: Coefficient, a number or `(num_units,)`.
        scale: Innovation scale `s`, positive, a number or `(num_units,)`.
        on: Whether locations are compared, or draws.
        weight: Factor on the cost, a number or a live tensor, scalar or `(num_units,)`.

    Returns:
        A function from posterior and prior to costs `(num_units,)`, in nats per row and step.

    Raises:
        InputError: For a scale that is not positive or an unknown `on`; and, when it runs, for a
            layer without a dimension of time before its units, or a single step.

    Example:
        >>> import pyro
        >>> from pyro_vdn.nn import VariationalNeurons
        >>> from pyro_vdn.poutine import penalize
        >>> costs = {"": autoregressive_cost(0.95, scale=window_scale(0.12))}
        >>> penalised = penalize(VariationalNeurons(3, 4), costs, name="memory")
        >>> earlier, current = torch.zeros(5, 3), torch.ones(5, 3)
        >>> trace = pyro.poutine.trace(penalised).get_trace(torch.stack([earlier, current], -2))
        >>> trace.nodes["memory"]["fn"].log_factor.shape
        torch.Size([5, 2, 4])

    Source:
        Ruffenach, *Exploring the Dimensions of a Variational Neuron*, arXiv:2603.13849 (2026).
    """
    check_choice("on", on, get_args(On))
    values = torch.as_tensor(scale)
    if not bool((values.isfinite() & (values > 0)).all()):
        raise InputError(
            "scale",
            expected="finite innovation scales above 0",
            got=str(scale),
            hint="scale=window_scale(0.1), from the centre of the energy band",
        )
    return partial(_cost, phi=phi, scale=scale, on=on, weight=weight)


def window_scale(center: float | Tensor) -> float:
    """Return the published innovation scale `0.8 sqrt(mean center)`, kept within [0.03, 1].

    Args:
        center: Centre of the energy band, a number or `(num_units,)`, such as
            ``(band.low + band.high) / 2``.

    Raises:
        InputError: For a centre that is negative or not finite.

    Example:
        >>> round(window_scale(0.12), 4), window_scale(1e-6), window_scale(4.0)
        (0.2771, 0.03, 1.0)
    """
    mean = float(torch.as_tensor(center).double().mean())
    if not (math.isfinite(mean) and mean >= 0):
        raise InputError(
            "center",
            expected="the centre of an energy band, at least 0",
            got=f"mean {mean:g}",
            hint="(band.low + band.high) / 2",
        )
    return min(max(0.8 * math.sqrt(mean), 0.03), 1.0)


def _cost(
    posterior: dist.Distribution,
    prior: dist.Distribution,
    *,
    phi: float | Tensor,
    scale: float | Tensor,
    on: On,
    weight: float | Tensor,
) -> Tensor:
    time = _steps(posterior)
    square = _square(posterior, phi, on)  # (..., time - 1, units)
    if posterior.event_dim == 0:
        square = square.unsqueeze(-1)
    units = posterior.batch_shape[-1]
    per_pair = square.sum(-1).reshape(-1, units).mean(0)
    return weight * (time - 1) / time * per_pair / (2 * scale**2)


def _square(posterior: dist.Distribution, phi: float | Tensor, on: On) -> Tensor:
    """Return `E[(z_t - phi z_{t-1})^2]` of consecutive steps, of draws or of locations alone."""
    dim = -2 - posterior.event_dim
    if isinstance(phi, Tensor) and phi.dim() and posterior.event_dim:
        phi = phi.unsqueeze(-1)  # (units,) -> (units, 1), before the latent dimensions

    def pair(values: Tensor) -> tuple[Tensor, Tensor]:
        count = values.shape[dim] - 1
        return values.narrow(dim, 1, count), values.narrow(dim, 0, count)

    now, before = pair(posterior.mean)
    square = (now - phi * before).square()
    if on == "loc":
        return square
    if not isinstance(posterior, GaussianChain):
        now, before = pair(posterior.variance)
        return square + now + phi**2 * before
    pasts = covariances(
        widened(posterior.coefficients, max(posterior.order, 2)), posterior.scale
    )  # of (z_t, z_{t-1}, ...)
    both = pasts[..., 1:, :, :2, :2]
    joint = both[..., 0, 0] - 2 * phi * both[..., 0, 1] + phi**2 * both[..., 1, 1]
    return square + joint


def _steps(posterior: dist.Distribution) -> int:
    shape = tuple(posterior.batch_shape)
    if len(shape) < 3 or shape[-2] < 2:
        raise InputError(
            "autoregressive_cost",
            expected="neurons of batch shape (..., rows, time, units) with at least two steps",
            got=f"shape {shape}",
            hint="a layer on torch.stack([earlier, current], -2), rows at dim -3 and time at -2",
        )
    return int(shape[-2])
