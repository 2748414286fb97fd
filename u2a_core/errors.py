"""Every mistake a user can make becomes a `U2AError`: what was wrong, where, and what to do, in one paragraph.

The command line prints the message alone and exits with code 2; the dashboard shows it in a box.
"""


class U2AError(Exception):
    """A user's mistake or a refused request; the message names file, row or id, and the remedy."""


class DataError(U2AError):
    """A data set that cannot be read, or that holds too little to work with."""


class BundleError(U2AError):
    """A bundle that is missing, incomplete, or changed since something was computed from it."""


class ModelError(U2AError):
    """A model or tokenizer that cannot be loaded or does not fit its task."""


class ScoringError(U2AError):
    """Scoring that cannot go on: an unsupported back end, a foreign half-finished run, a number that is not finite."""


class StorageError(U2AError):
    """A folder that cannot be written, or a disk that is full."""
