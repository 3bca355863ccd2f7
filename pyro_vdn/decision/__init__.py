"""Deciding: readouts of draws, and whether uncertainty knows where the risk is."""

from pyro_vdn.decision._bootstrap import Estimate
from pyro_vdn.decision.abstention import Acceptance, Certificate, Threshold, action_score
from pyro_vdn.decision.adaptive_draws import AdaptiveDraws, adaptive_draws
from pyro_vdn.decision.added_value import added_value
from pyro_vdn.decision.combination import Coefficient, Combination
from pyro_vdn.decision.comparison import AURCComparison, ScoreArea, compare_aurc
from pyro_vdn.decision.costs import Costs, PolicyCases
from pyro_vdn.decision.plots import plot_risk_coverage
from pyro_vdn.decision.policy import Policy
from pyro_vdn.decision.policy_plots import plot_draws, plot_policy
from pyro_vdn.decision.policy_report import ActionShare, Alternative, PolicyReport
from pyro_vdn.decision.quantities import Mean, Measured, Probability, Quantile, Quantity
from pyro_vdn.decision.readout_choice import ReadoutChoice, ReadoutScores, choose_readout
from pyro_vdn.decision.readout_scores import ReadoutScore, SelectionScore
from pyro_vdn.decision.readouts import READOUTS, TEMPERATURES, Readout, candidate_readouts
from pyro_vdn.decision.risk_coverage import RiskCoverage, aurc, e_aurc, risk_coverage

__all__ = [
    "READOUTS",
    "TEMPERATURES",
    "AURCComparison",
    "Acceptance",
    "ActionShare",
    "AdaptiveDraws",
    "Alternative",
    "Certificate",
    "Coefficient",
    "Combination",
    "Costs",
    "Estimate",
    "Mean",
    "Measured",
    "Policy",
    "PolicyCases",
    "PolicyReport",
    "Probability",
    "Quantile",
    "Quantity",
    "Readout",
    "ReadoutChoice",
    "ReadoutScore",
    "ReadoutScores",
    "RiskCoverage",
    "ScoreArea",
    "SelectionScore",
    "Threshold",
    "action_score",
    "adaptive_draws",
    "added_value",
    "aurc",
    "candidate_readouts",
    "choose_readout",
    "compare_aurc",
    "e_aurc",
    "plot_draws",
    "plot_policy",
    "plot_risk_coverage",
    "risk_coverage",
]
