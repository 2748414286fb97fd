"""A forget set as a file that jobs take: `forget_sets/<key>.jsonl` beside the bundle's results, the key a hash of it.

So a file never changes its meaning, and a job that waits unlearns what was chosen when it was started.
"""

import hashlib
from pathlib import Path

from u2a_core.bundle import Bundle
from u2a_core.store.files import replacing
from u2a_core.store.forget_commands import Entries
from u2a_core.store.forget_files import as_jsonl


def set_file(bundle: Bundle, entries: Entries) -> Path:
    """Where a set lies once `write_set_file` wrote it; raises `UnlearningError` where nothing of it is unlearned."""
    return bundle.results / "forget_sets" / f"{hashlib.sha256(as_jsonl(entries)).hexdigest()[:16]}.jsonl"


def write_set_file(bundle: Bundle, entries: Entries) -> Path:
    """Write a set to its file, unless it is there; raises `StorageError` where the disk refuses."""
    path = set_file(bundle, entries)
    if not path.is_file():
        with replacing(path) as part:
            part.write_bytes(as_jsonl(entries))
    return path
