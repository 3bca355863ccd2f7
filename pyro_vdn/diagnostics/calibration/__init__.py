"""Calibration, reliability, recalibration and conformal intervals."""
