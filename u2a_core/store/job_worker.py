"""The process behind one job: waits for its turn, runs the command as a child, minds `cancel`, records the outcome.

`u2a_core.store.jobs` starts it as `python -m u2a_core.store.job_worker FOLDER LOCK GRACE EXECUTABLE...`, where LOCK is
an open descriptor that holds the job's lock. The command inherits that lock and the queue's, so that neither is free
while it lives; on Linux it is killed when its worker is.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from u2a_core.store.files import write_json
from u2a_core.store.job_folder import alive, is_job_id, output_lines, read_spec
from u2a_core.store.progress import WATCHER

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)  # as by Ctrl-C, then sternly, then by force
_POLL = 0.2  # seconds
_MOST_OUTPUT = 1 << 18  # bytes at the end of the output in which an error is looked for
_MOST_ERROR = 4000  # characters
_PR_SET_PDEATHSIG = 1  # prctl(2)


def work(folder: Path, lock: int, grace: float, executable: Sequence[str]) -> None:
    """Bring the job at `folder` to its end: `executable` with its words, once no older job lives."""
    known: dict[str, Any] = {"pid": os.getpid()}
    write_json(folder / "state.json", {"state": "queued", **known})
    queue = os.open(folder.parent / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    if not _wait_for_turn(folder, queue):
        write_json(folder / "state.json", {"state": "cancelled", **known, "ended": time.time()})
        return
    spec = read_spec(folder)
    known["started"] = time.time()
    write_json(folder / "state.json", {"state": "running", **known})
    own = {WATCHER: str(folder / "progress.jsonl"), "PYTHONUNBUFFERED": "1"}
    try:
        child = subprocess.Popen(  # noqa: S603 - checked words for the program that started us, without a shell
            [*executable, *spec.argv],
            env={**os.environ, **spec.environment, **own},
            pass_fds=(lock, queue),
            process_group=0,
            preexec_fn=_die_with_worker,
        )
    except OSError as error:
        known |= {"state": "failed", "error": f"The command could not be started: {error}."}
    else:
        stopped = _wait_for_end(child, folder / "cancel", grace)
        known |= {"return_code": child.returncode, **_outcome(folder, child.returncode, stopped)}
    write_json(folder / "state.json", {**known, "ended": time.time()})


def _wait_for_turn(folder: Path, queue: int) -> bool:
    """Return once no older job lives and the queue's lock is ours; False where `cancel` came first."""
    over: set[str] = set()
    while not (folder / "cancel").exists():
        names = {path.name for path in folder.parent.iterdir()} - over
        older = {name for name in names if is_job_id(name) and name < folder.name}
        over |= {name for name in older if not _lives(folder.parent / name)}
        if older <= over and _take(queue):
            return True
        time.sleep(_POLL)
    return False


def _lives(other: Path) -> bool:
    try:
        return alive(other)
    except OSError:  # a foreign folder that cannot be asked is not waited for: the queue's lock decides
        return False


def _take(queue: int) -> bool:
    try:
        fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_end(child: subprocess.Popen[bytes], cancel: Path, grace: float) -> bool:
    """Return when the child has ended: whether it was asked to."""
    sent, due = 0, 0.0
    while child.poll() is None:
        if sent < len(_SIGNALS) and cancel.exists() and time.monotonic() >= due:
            os.killpg(child.pid, _SIGNALS[sent])
            sent, due = sent + 1, time.monotonic() + grace
        time.sleep(_POLL)
    return sent > 0


def _outcome(folder: Path, code: int, stopped: bool) -> dict[str, str]:
    if code == 0:
        return {"state": "done"}
    if stopped:
        return {"state": "cancelled"}
    if code < 0:
        error = (
            f"The command was killed by signal {-code} ({signal.strsignal(-code)}). If nobody did that, the machine "
            "most likely ran out of memory: start it again with a smaller --token-budget (or --batch-size)."
        )
        return {"state": "failed", "error": error}
    return {"state": "failed", "error": error_paragraph(output_lines(folder, _MOST_OUTPUT))}


def error_paragraph(lines: Sequence[str]) -> str:
    """What a failed command said last: the paragraph after `Error:`, else the last paragraph without the frames of a
    traceback.
    """
    text = "\n".join(line.rstrip() for line in lines).strip()
    _, marker, said = f"\n{text}".rpartition("\nError: ")
    if marker and "\nTraceback (most recent" not in said:
        return said.partition("\n\n")[0][:_MOST_ERROR]
    last = text.rpartition("\n\n")[2].split("\n")
    kept = [line for line in last if not line.startswith((" ", "Traceback (most recent"))]
    return "\n".join(kept)[-_MOST_ERROR:] or "The command failed without a word."


def _die_with_worker() -> None:
    """In the child, before the command takes its place: be killed when the worker dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Read the command line that `u2a_core.store.jobs` wrote."""
    folder, lock, grace, *executable = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a server started in the background ignores it; the child must not
    work(Path(folder), int(lock), float(grace), executable)


if __name__ == "__main__":
    main()
