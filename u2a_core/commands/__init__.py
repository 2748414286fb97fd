"""The functions behind `u2a …`, grouped by what they make; each imports the engine only when it runs."""
