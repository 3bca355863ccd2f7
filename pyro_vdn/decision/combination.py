"""A fitted combination of uncertainty scores: the risk they predict together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from pyro_vdn.decision import _regression
from pyro_vdn.decision._features import Features, check_length, named_columns
from pyro_vdn.decision._ordering import Array
from pyro_vdn.diagnostics._blocks import block_numbers
from pyro_vdn.diagnostics._checks import as_array
from pyro_vdn.errors import InputError


class Coefficient(NamedTuple):
    """The weight of one feature in a combination.

    Args:
        value: Change of the log-odds (0/1 risk) or of the risk in its own units, per standard
            deviation of the feature, the others held.
        standard_error: Robust to unequal variances, and to dependence within blocks.

    Example:
        >>> Coefficient(0.5, 0.1).value
        0.5
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class Combination:
    r"""A combination of uncertainty scores that predicts the risk of a case.

    With features :math:`x_j`, standardised by their mean and standard deviation on the cases it was
    fitted to,

    .. math:: \eta = b_0 + \sum_j b_j \frac{x_j - m_j}{s_j}, \qquad
        E[\ell] = \eta \ (\text{linear}), \quad P(\ell = 1) = \frac{1}{1 + e^{-\eta}} \
        (\text{logistic})

    A risk of 0 and 1 is fitted by logistic regression, any other by least squares: in a calibrated
    model the expected negative log-likelihood *is* the entropy, so that corrections add to it in
    nats. Fit it on validation cases and apply it to others.

    Args:
        kind: `"linear"` or `"logistic"`.
        names: Names of the features.
        center: Mean :math:`m_j` of each.
        spread: Standard deviation :math:`s_j` of each.
        weights: :math:`b_0, b_1, \dots`.
        standard_errors: Those of the weights.

    Example:
        >>> entropy = np.linspace(0.0, 3.0, 50)
        >>> kl = np.cos(7.0 * entropy)
        >>> fitted = Combination.fit({"entropy": entropy, "kl": kl}, 1.0 + 2.0 * entropy + kl)
        >>> fitted.predict({"entropy": [0.5], "kl": [0.1]}).round(3)
        array([2.1])
        >>> Combination.from_dict(fitted.to_dict()) == fitted
        True
    """

    kind: Literal["linear", "logistic"]
    names: tuple[str, ...]
    center: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[float, ...]
    standard_errors: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        features: Features,
        risk: Tensor | ArrayLike,
        *,
        names: Sequence[str] | None = None,
        blocks: Tensor | ArrayLike | None = None,
        ridge: float = 1e-6,
    ) -> Combination:
        r"""Fit a combination, on validation cases.

        Minimises the mean loss plus :math:`\frac{\text{ridge}}{2} \sum_j b_j^2`.

        Args:
            features: Scores by name, each `(cases,)`.
            risk: Risk of each case, `(cases,)`; logistic if it holds 0 and 1 only.
            names: Which features to use; all by default.
            blocks: Labels of cases that depend on each other, such as the sequence each token
                belongs to, `(cases,)`; they widen the standard errors, not the weights.
            ridge: Keeps the weights finite where features repeat each other or separate the risk.

        Returns:
            The combination.

        Raises:
            InputError: Without features, for an unknown or constant one, if shapes disagree, a
                value is not finite, there are too few cases, or all have the same 0/1 risk.
        """
        chosen = tuple(features if names is None else names)
        columns = named_columns(features, chosen)
        loss = as_array("risk", risk, ndim=1, sizes="(cases,)")
        _check_fit(columns, chosen, loss, ridge)
        center, spread = columns.mean(0), columns.std(0)
        inputs = _with_one((columns - center) / spread)
        logistic = bool(np.isin(loss, (0.0, 1.0)).all())
        index = block_numbers(blocks, len(loss), least=2)
        solve = _regression.logistic if logistic else _regression.linear
        weights, errors = solve(inputs, loss, index, ridge)
        return cls(
            kind="logistic" if logistic else "linear",
            names=chosen,
            center=tuple(center.tolist()),
            spread=tuple(spread.tolist()),
            weights=tuple(weights.tolist()),
            standard_errors=tuple(errors.tolist()),
        )

    @property
    def coefficients(self) -> dict[str, Coefficient]:
        """The weight of each feature, with its standard error."""
        pairs = zip(self.weights[1:], self.standard_errors[1:], strict=True)
        return {name: Coefficient(*pair) for name, pair in zip(self.names, pairs, strict=True)}

    def predict(self, features: Features) -> Array:
        """Return the predicted risk of each case: an uncertainty score like any other.

        Args:
            features: Scores by name, each `(cases,)`; names that were not fitted are left alone.

        Returns:
            Expected risk in its own units, or the probability of risk 1, `(cases,)`.

        Raises:
            InputError: If a fitted feature is missing, shapes disagree, or a value is not finite.
        """
        inputs = (named_columns(features, self.names) - np.array(self.center)) / np.array(
            self.spread
        )
        eta = _with_one(inputs) @ np.array(self.weights)
        return _regression.sigmoid(eta) if self.kind == "logistic" else eta

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and lists, ready for JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Combination:
        """Return the combination that `to_dict` described."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


def _check_fit(columns: Array, names: tuple[str, ...], risk: Array, ridge: float) -> None:
    check_length("risk", risk, len(columns))
    if not ridge > 0.0:
        raise InputError("ridge", expected="above 0", got=repr(ridge), hint="ridge=1e-6")
    if len(risk) <= len(names) + 1:
        raise InputError(
            "risk",
            expected=f"more than {len(names) + 1} cases for {len(names)} features",
            got=f"{len(risk)}",
            hint="fit on more validation cases",
        )
    for name, constant in zip(names, np.ptp(columns, axis=0) == 0.0, strict=True):
        if constant:
            raise InputError(
                f"features['{name}']",
                expected="values that differ between cases",
                got=f"{columns[0, names.index(name)]} everywhere",
                hint="leave it out: a constant says nothing",
            )
    if np.ptp(risk) == 0.0 and risk[0] in (0.0, 1.0):
        raise InputError(
            "risk",
            expected="both 0 and 1, or other numbers",
            got=f"{risk[0]} everywhere",
            hint="fit on cases of which some are right and some wrong",
        )


def _with_one(inputs: Array) -> Array:
    """Put a column of ones, for the constant, in front of the inputs."""
    return np.concatenate([np.ones((len(inputs), 1)), inputs], axis=1)
