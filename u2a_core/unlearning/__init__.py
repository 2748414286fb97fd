"""Weighted unlearning (the inner problem) and the U2A solver that finds the weights (the outer one)."""
