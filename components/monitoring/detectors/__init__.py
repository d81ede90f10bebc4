"""Drift detectors: what is compared (effect, mix), by which library (alibi), and when a difference is an alarm (calibration)."""
