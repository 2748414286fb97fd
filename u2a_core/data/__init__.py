"""From data sets to encoded batches: formats, splits, encoding."""
