"""U2A Studio: scores, shows, weighs and unlearns negative examples (Unlearning to Align, arXiv 2504.06659)."""

__version__ = "0.1.0"
