"""The published scores that a readout is chosen by."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

from pyro_vdn.decision.readouts import Readout
from pyro_vdn.diagnostics import cvar, expected_calibration_error

SelectionScore = Literal["calibration", "tail", "balanced"]
"""What a readout is chosen by."""


class ReadoutScore(NamedTuple):
    r"""How one readout does on validation tokens; smaller is better everywhere.

    With :math:`(x)_+ = \max(x, 0)`:

    .. math::
        \text{calibration} &= \text{ECE} + 0.01 \, \text{NLL} + 0.001 \, (\text{CVaR} -
            \text{NLL})_+ \\
        \text{tail} &= \text{CVaR} + 0.05 \, \text{NLL} + 0.25 \, \text{ECE} \\
        \text{balanced} &= \text{NLL} + 2 \, \text{ECE} + 0.05 \, (\text{CVaR} - \text{NLL})_+

    Args:
        readout: The readout.
        nll: Mean negative log-likelihood in nats per token.
        ece: Expected calibration error of the maximum probability, 15 equally wide bins, in [0, 1].
        cvar: Mean negative log-likelihood of the worst 5 % of the tokens, in nats.

    Example:
        >>> ReadoutScore(Readout(), nll=2.0, ece=0.1, cvar=8.0).balanced
        2.5

    Source: Ruffenach, *Learning Distributions Inside a Language Model*, doi:10.5281/zenodo.21632472
    (2026).
    """

    readout: Readout
    nll: float
    ece: float
    cvar: float

    @property
    def calibration(self) -> float:
        """The score that weighs calibration."""
        return self.ece + 0.01 * self.nll + 0.001 * max(self.cvar - self.nll, 0.0)

    @property
    def tail(self) -> float:
        """The score that weighs the worst tokens, in nats."""
        return self.cvar + 0.05 * self.nll + 0.25 * self.ece

    @property
    def balanced(self) -> float:
        """The score that weighs the likelihood, in nats."""
        return self.nll + 2.0 * self.ece + 0.05 * max(self.cvar - self.nll, 0.0)


class Combined(NamedTuple):
    """One readout of some tokens at temperature 1, and what its scores at others need."""

    log_probs: Tensor
    most: Tensor
    of_target: Tensor
    correct: Tensor

    @classmethod
    def of(cls, log_probs: Tensor, targets: Tensor) -> Combined:
        """Take what the tokens `(tokens,)` need of the readout `(tokens, vocabulary)`."""
        most, likeliest = log_probs.max(-1)
        of_target = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return cls(log_probs, most, of_target, likeliest == targets)

    def at(self, temperature: float) -> tuple[Tensor, Tensor]:
        """Return negative log-likelihood and maximum probability, each `(tokens,)`."""
        normaliser = (self.log_probs / temperature).logsumexp(-1)
        return (
            normaliser - self.of_target / temperature,
            (self.most / temperature - normaliser).exp().clamp_max(1.0),
        )


def score(readout: Readout, nll: Tensor, confidence: Tensor, correct: Tensor) -> ReadoutScore:
    """Sum up tokens, each argument `(tokens,)`."""
    error = expected_calibration_error(confidence, correct)
    return ReadoutScore(readout, nll=float(nll.double().mean()), ece=error, cvar=cvar(nll))
