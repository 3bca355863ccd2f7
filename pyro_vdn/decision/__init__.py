"""Deciding: readouts of draws, and whether uncertainty knows where the risk is."""

from pyro_vdn.decision.readouts import READOUTS, TEMPERATURES, Readout, candidate_readouts
from pyro_vdn.decision.risk_coverage import RiskCoverage, aurc, e_aurc, risk_coverage

__all__ = [
    "READOUTS",
    "TEMPERATURES",
    "Readout",
    "RiskCoverage",
    "aurc",
    "candidate_readouts",
    "e_aurc",
    "risk_coverage",
]
