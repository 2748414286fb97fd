"""What lies on disk: scores, hashes, atomic writes; no torch."""
