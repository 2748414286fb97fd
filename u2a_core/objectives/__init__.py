"""Alignment J and forgetting objectives: pure functions of per-token log-probabilities."""
