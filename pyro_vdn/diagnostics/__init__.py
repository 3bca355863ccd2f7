"""Seeing: scores, calibration, which units live and which have collapsed, figures."""

from pyro_vdn.diagnostics._figure import MissingPackageError, save
from pyro_vdn.diagnostics.calibration.adaptive_conformal import AdaptiveConformal, AdaptiveRun
from pyro_vdn.diagnostics.calibration.calibration import CalibrationCurve, calibration_curve, pit
from pyro_vdn.diagnostics.calibration.calibration_plots import (
    plot_event_reliability,
    plot_quantile_reliability,
)
from pyro_vdn.diagnostics.calibration.conformal import SplitConformal
from pyro_vdn.diagnostics.calibration.event_reliability import EventReliability, event_reliability
from pyro_vdn.diagnostics.calibration.isotonic import isotonic_fit
from pyro_vdn.diagnostics.calibration.isotonic_pit import IsotonicPIT
from pyro_vdn.diagnostics.calibration.plots import (
    FAN_LEVELS,
    plot_calibration,
    plot_fan,
    plot_unit_activity,
)
from pyro_vdn.diagnostics.calibration.recalibration import VarianceScaling
from pyro_vdn.diagnostics.calibration.reliability import QuantileReliability, quantile_reliability
from pyro_vdn.diagnostics.comparison.compare import ComparedFit, Comparison, compare
from pyro_vdn.diagnostics.comparison.compare_plots import plot_compare
from pyro_vdn.diagnostics.comparison.compare_scores import (
    ComparedScore,
    ScoreComparison,
    compare_scores,
)
from pyro_vdn.diagnostics.comparison.decomposition import Decomposition, decompose_variance
from pyro_vdn.diagnostics.comparison.decomposition_plots import plot_decomposition, plot_unit_shares
from pyro_vdn.diagnostics.comparison.dose_response import TRENDS, DoseResponse, dose_response
from pyro_vdn.diagnostics.comparison.rank_correlation import Correlation, rank_correlation
from pyro_vdn.diagnostics.comparison.stacking import pseudo_bma_weights, stacking_weights
from pyro_vdn.diagnostics.comparison.unit_shares import (
    LayerVariances,
    Share,
    UnitShares,
    unit_shares,
)
from pyro_vdn.diagnostics.export._arviz import ArviZData
from pyro_vdn.diagnostics.export._request import EXPORT_GROUPS
from pyro_vdn.diagnostics.export.arrays_to_arviz import SAMPLE_GROUPS, arrays_to_arviz
from pyro_vdn.diagnostics.export.netcdf import load_netcdf, save_netcdf
from pyro_vdn.diagnostics.export.to_arviz import to_arviz
from pyro_vdn.diagnostics.inference.amortization import AmortizationGap, amortization_gap
from pyro_vdn.diagnostics.inference.evidence import Evidence, EvidenceEstimate, importance_evidence
from pyro_vdn.diagnostics.inference.nuts import compare_with_nuts
from pyro_vdn.diagnostics.inference.nuts_comparison import NutsComparison, SiteComparison
from pyro_vdn.diagnostics.inference.psis import Smoothed, psis
from pyro_vdn.diagnostics.inference.sbc_plots import plot_sbc
from pyro_vdn.diagnostics.inference.sbc_result import SBCResult
from pyro_vdn.diagnostics.inference.simulation_based_calibration import simulation_based_calibration
from pyro_vdn.diagnostics.predictive.check_statistics import (
    CHECK_STATISTICS,
    OfSeries,
    autocorrelation,
    roughness,
)
from pyro_vdn.diagnostics.predictive.ecdf_bands import MOST_POINTS, EcdfBand, ecdf_band
from pyro_vdn.diagnostics.predictive.histogram_bands import HistogramBand, histogram_band
from pyro_vdn.diagnostics.predictive.loo_pit import LooPit, loo_pit
from pyro_vdn.diagnostics.predictive.predictive_check import PredictiveCheck, predictive_check
from pyro_vdn.diagnostics.predictive.predictive_plots import plot_pit, plot_predictive_check
from pyro_vdn.diagnostics.scoring.interval_scores import interval_score, pinball
from pyro_vdn.diagnostics.scoring.intervals import (
    Interval,
    central_interval,
    coverage,
    interval_coverage,
    interval_width,
    sharpness,
)
from pyro_vdn.diagnostics.scoring.log_scores import log_score, log_score_normal
from pyro_vdn.diagnostics.scoring.quantiles import draw_quantiles
from pyro_vdn.diagnostics.scoring.scores import crps_draws, crps_mixture, crps_normal
from pyro_vdn.diagnostics.scoring.trajectory_scores import energy_score, variogram_score
from pyro_vdn.diagnostics.tokens.temperature import TEMPERATURES, TemperatureFit, fit_temperature
from pyro_vdn.diagnostics.tokens.token_calibration import (
    CALIBRATION_BINS,
    Reliability,
    adaptive_calibration_error,
    expected_calibration_error,
    reliability_curve,
)
from pyro_vdn.diagnostics.tokens.token_groups import (
    by_group,
    label_frequency,
    label_ranges,
    label_stretches,
)
from pyro_vdn.diagnostics.tokens.token_metrics import TokenMetrics, score_columns
from pyro_vdn.diagnostics.tokens.token_plots import plot_reliability
from pyro_vdn.diagnostics.tokens.token_scores import (
    TokenScores,
    average_log_probs,
    tempered,
    token_scores,
)
from pyro_vdn.diagnostics.tokens.token_summary import (
    WORST_SHARE,
    TokenSummary,
    block_error,
    cvar,
    summarise_tokens,
)
from pyro_vdn.diagnostics.units.collapse import CollapseReport, UnitCall, collapse_report
from pyro_vdn.diagnostics.units.history import QUANTITIES, TERMS, Drift, TrainingHistory
from pyro_vdn.diagnostics.units.latent_usage import LayerUsage, latent_usage
from pyro_vdn.diagnostics.units.measure import unit_statistics
from pyro_vdn.diagnostics.units.memory_share import memory_share
from pyro_vdn.diagnostics.units.persistence import UnitPersistence, carried_share, half_life
from pyro_vdn.diagnostics.units.persistence_plots import plot_persistence
from pyro_vdn.diagnostics.units.persistence_report import PersistenceReport, persistence_report
from pyro_vdn.diagnostics.units.responses import unit_responses
from pyro_vdn.diagnostics.units.statistics import ACTIVE_THRESHOLD, BandShares, UnitStatistics, Use
from pyro_vdn.diagnostics.units.symptoms import CollapseMode, CollapseThresholds
from pyro_vdn.diagnostics.units.unit_plots import (
    plot_collapse,
    plot_contraction,
    plot_loss_terms,
    plot_responses,
    plot_training,
)
from pyro_vdn.diagnostics.units.use import downstream_use

__all__ = [
    "ACTIVE_THRESHOLD",
    "CALIBRATION_BINS",
    "CHECK_STATISTICS",
    "EXPORT_GROUPS",
    "FAN_LEVELS",
    "MOST_POINTS",
    "QUANTITIES",
    "SAMPLE_GROUPS",
    "TEMPERATURES",
    "TERMS",
    "TRENDS",
    "WORST_SHARE",
    "AdaptiveConformal",
    "AdaptiveRun",
    "AmortizationGap",
    "ArviZData",
    "BandShares",
    "CalibrationCurve",
    "CollapseMode",
    "CollapseReport",
    "CollapseThresholds",
    "ComparedFit",
    "ComparedScore",
    "Comparison",
    "Correlation",
    "Decomposition",
    "DoseResponse",
    "Drift",
    "EcdfBand",
    "EventReliability",
    "Evidence",
    "EvidenceEstimate",
    "HistogramBand",
    "Interval",
    "IsotonicPIT",
    "LayerUsage",
    "LayerVariances",
    "LooPit",
    "MissingPackageError",
    "NutsComparison",
    "OfSeries",
    "PersistenceReport",
    "PredictiveCheck",
    "QuantileReliability",
    "Reliability",
    "SBCResult",
    "ScoreComparison",
    "Share",
    "SiteComparison",
    "Smoothed",
    "SplitConformal",
    "TemperatureFit",
    "TokenMetrics",
    "TokenScores",
    "TokenSummary",
    "TrainingHistory",
    "UnitCall",
    "UnitPersistence",
    "UnitShares",
    "UnitStatistics",
    "Use",
    "VarianceScaling",
    "adaptive_calibration_error",
    "amortization_gap",
    "arrays_to_arviz",
    "autocorrelation",
    "average_log_probs",
    "block_error",
    "by_group",
    "calibration_curve",
    "carried_share",
    "central_interval",
    "collapse_report",
    "compare",
    "compare_scores",
    "compare_with_nuts",
    "coverage",
    "crps_draws",
    "crps_mixture",
    "crps_normal",
    "cvar",
    "decompose_variance",
    "dose_response",
    "downstream_use",
    "draw_quantiles",
    "ecdf_band",
    "energy_score",
    "event_reliability",
    "expected_calibration_error",
    "fit_temperature",
    "half_life",
    "histogram_band",
    "importance_evidence",
    "interval_coverage",
    "interval_score",
    "interval_width",
    "isotonic_fit",
    "label_frequency",
    "label_ranges",
    "label_stretches",
    "latent_usage",
    "load_netcdf",
    "log_score",
    "log_score_normal",
    "loo_pit",
    "memory_share",
    "persistence_report",
    "pinball",
    "pit",
    "plot_calibration",
    "plot_collapse",
    "plot_compare",
    "plot_contraction",
    "plot_decomposition",
    "plot_event_reliability",
    "plot_fan",
    "plot_loss_terms",
    "plot_persistence",
    "plot_pit",
    "plot_predictive_check",
    "plot_quantile_reliability",
    "plot_reliability",
    "plot_responses",
    "plot_sbc",
    "plot_training",
    "plot_unit_activity",
    "plot_unit_shares",
    "predictive_check",
    "pseudo_bma_weights",
    "psis",
    "quantile_reliability",
    "rank_correlation",
    "reliability_curve",
    "roughness",
    "save",
    "save_netcdf",
    "score_columns",
    "sharpness",
    "simulation_based_calibration",
    "stacking_weights",
    "summarise_tokens",
    "tempered",
    "to_arviz",
    "token_scores",
    "unit_responses",
    "unit_shares",
    "unit_statistics",
    "variogram_score",
]
