"""Metrics: pure functions of arrays, computed in float64."""
