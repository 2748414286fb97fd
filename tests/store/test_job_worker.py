"""Jobs with real processes: outcome, cancelling, the queue, and what happens when any of the processes is killed."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

from u2a_core.store.job_folder import LIVING, Job, read_folder
from u2a_core.store.job_worker import error_paragraph
from u2a_core.store.jobs import Launch, again, cancel, forget, jobs, start

Begin = Callable[..., Job]

# Logs its begin and end, and waits for a file called `go` in between.
WAITING = """
import os, sys, time
log, go = sys.argv[2:4]
def say(word):
    with open(log, "a") as stream:
        stream.write(f"{word} {sys.argv[4]} {os.getpid()}\\n")
say("begin")
while not os.path.exists(go):
    time.sleep(0.02)
say("end")
"""


# Would live on when its worker dies, as commands do on other systems than Linux.
ALONE = "import ctypes; ctypes.CDLL(None).prctl(1, 0)" + WAITING


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A jobs folder whose workers do not outlive the test."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    yield tmp_path / "jobs"
    for job in jobs(tmp_path / "jobs"):
        if job.state in LIVING and job.pid:
            with suppress(ProcessLookupError):
                os.kill(job.pid, signal.SIGKILL)


@pytest.fixture
def begin(folder: Path) -> Begin:
    """A function that starts Python code as a job; `words` are its arguments after `score`."""

    def begin(code: str, *words: str, grace: float = 20.0, environment: dict[str, str] | None = None) -> Job:
        return start(folder, ["score", *words], "a test", "b", environment, python(code, grace))

    return begin


def python(code: str, grace: float = 20.0) -> Launch:
    return Launch((sys.executable, "-c", code), grace)


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def over(job: Job) -> Job:
    """The job when it is over."""
    until(lambda: read_folder(job.folder).state not in LIVING)
    return read_folder(job.folder)


def printed(job: Job, text: str) -> None:
    until(lambda: text in read_folder(job.folder).lines)


def running(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def log_of(tmp_path: Path) -> list[list[str]]:
    """Word, name and process of every line that `WAITING` logged."""
    path = tmp_path / "log"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_command_that_succeeds(begin: Begin, folder: Path) -> None:
    code = """
import os, sys
print(sys.argv[1:])
print(os.environ["CUDA_VISIBLE_DEVICES"], repr(sys.stdin.read()), file=sys.stderr)
print(os.getsid(0) == os.getppid(), os.getpgid(0) == os.getpid())
"""
    words = ("my bundle; $(touch x)", "*", "", "ω'\"")
    begun = begin(code, *words, environment={"CUDA_VISIBLE_DEVICES": "3"})
    assert begun.state in LIVING
    job = over(begun)
    assert (job.state, job.return_code, job.error, job.fraction) == ("done", 0, None, 1.0)
    assert job.lines == (str(["score", *words]), "3 ''", "True True"), "in order, in a session of its own"
    assert job.spec is not None
    assert job.spec.created <= job.started <= job.ended
    assert job.id > "2026"
    until(lambda: not running(job.pid))
    forget(job)
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_a_command_reads_nothing_from_the_terminal_of_the_server(begin: Begin) -> None:
    ours, pipe = os.dup(0), os.pipe()
    os.dup2(pipe[0], 0)
    try:
        job = begin("import sys; print(repr(sys.stdin.read()))")
    finally:
        os.dup2(ours, 0)
    assert over(job).lines == ("''",)
    for descriptor in (ours, *pipe):
        os.close(descriptor)


def test_a_command_that_fails_with_its_paragraph(begin: Begin) -> None:
    code = "import sys; print('Error: no bundle\\nat x. Make one.', file=sys.stderr); sys.exit(2)"
    job = over(begin(code))
    assert (job.state, job.return_code, job.error) == ("failed", 2, "no bundle\nat x. Make one.")


def test_a_command_that_breaks_or_is_killed(begin: Begin) -> None:
    broken, killed = begin("raise ValueError('odd')"), begin("import os; os.kill(os.getpid(), 9)")
    assert (over(broken).error, broken.folder.name < killed.folder.name) == ("ValueError: odd", True)
    job = over(killed)
    assert (job.state, job.return_code) == ("failed", -9)
    assert "killed by signal 9 (Killed)" in job.error
    assert "--token-budget" in job.error


def test_the_real_command_line(folder: Path) -> None:
    job = over(start(folder, ["score", "b", "--odd"], "t", "b"))
    assert (job.state, job.return_code) == ("failed", 2)
    assert job.error.startswith("No such option")
    assert "--odd" in job.error
    assert job.lines[0] == "Usage: python -m u2a_core.cli score [OPTIONS] BUNDLE"


def test_a_command_that_cannot_be_started(folder: Path) -> None:
    job = over(start(folder, ["score"], "t", "b", launch=Launch(("/nowhere/python",), 1.0)))
    assert (job.state, job.return_code) == ("failed", None)
    assert "could not be started: [Errno 2] No such file or directory: '/nowhere/python'" in job.error


def test_a_folder_does_not_say_what_is_run(folder: Path) -> None:
    """The words of a foreign job go to our own program, whatever its folder says."""
    job = over(start(folder, ["score"], "t", "b", launch=python("print('ours')")))
    spec = json.loads((job.folder / "spec.json").read_text())
    assert set(spec) == {"argv", "title", "bundle", "environment", "created"}
    evil = {"executable": ["/bin/sh", "-c", "echo evil"], "launch": ["/bin/echo", "evil"]}
    (job.folder / "spec.json").write_text(json.dumps({**spec, **evil}))
    assert over(again(job, python("print('ours again')"))).lines == ("ours again",)


POLITE = """
import subprocess, sys, time
other = subprocess.Popen(["sleep", "60"])
print(other.pid, "ready", sep="\\n", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("Interrupted. What was finished is kept")
    sys.exit({code})
"""


@pytest.mark.parametrize(("code", "state"), [(130, "cancelled"), (1, "cancelled"), (0, "done")])
def test_a_polite_command_ends_as_by_ctrl_c(begin: Begin, code: int, state: str) -> None:
    """Also where the server ignores SIGINT, as one that a script started in the background does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job = begin(POLITE.format(code=code))
    finally:
        signal.signal(signal.SIGINT, before)
    printed(job, "ready")
    cancel(job)
    job = over(job)
    assert (job.state, job.return_code, job.error) == (state, code, None)
    assert job.lines[-1] == "Interrupted. What was finished is kept"
    until(lambda: not running(int(job.lines[0])))


def test_a_stubborn_command_is_asked_twice_and_killed(begin: Begin) -> None:
    code = """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda got, frame: print(signal.Signals(got).name))
print("ready")
while True:
    time.sleep(60)
"""
    job = begin(code, grace=0.8)
    printed(job, "ready")
    cancel(job)
    job = over(job)
    assert (job.state, job.return_code, job.lines) == ("cancelled", -9, ("ready", "SIGINT", "SIGTERM"))


def test_progress_is_seen_while_the_command_runs(begin: Begin, tmp_path: Path) -> None:
    code = """
import os, sys, time
from u2a_core.store.progress import Progress
with Progress("influence", 4, show=False) as progress:
    time.sleep(0.1)
    progress.step(3)
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.02)
sys.exit(1)
"""
    job = begin(code, str(tmp_path / "go"))
    until(lambda: read_folder(job.folder).fraction is not None)
    seen = read_folder(job.folder)
    assert (seen.state, seen.phase, seen.fraction) == ("running", "influence", 0.75)
    assert 0 < seen.seconds_left < seen.seconds
    (tmp_path / "go").touch()
    job = over(job)
    assert (job.state, job.phase, job.fraction, job.seconds_left) == ("failed", "influence", 0.75, None)


def test_one_at_a_time_in_order_and_a_queued_one_can_be_cancelled(begin: Begin, folder: Path, tmp_path: Path) -> None:
    log, go = str(tmp_path / "log"), tmp_path / "go"
    first, second, third, fourth = (begin(WAITING, log, str(go), str(number)) for number in range(4))
    until(lambda: log_of(tmp_path) != [])
    until(lambda: all(job.pid for job in jobs(folder)))
    assert [job.state for job in jobs(folder)] == ["queued", "queued", "queued", "running"]
    cancel(second)
    second = over(second)
    assert (second.state, second.started, second.seconds, second.return_code) == ("cancelled", None, None, None)
    assert second.ended is not None
    go.touch()
    assert [over(job).state for job in (first, third, fourth)] == ["done"] * 3
    assert [line[:2] for line in log_of(tmp_path)] == [[word, name] for name in "023" for word in ("begin", "end")]


STARTER = """
import sys
from pathlib import Path
from u2a_core.store.jobs import Launch, start
folder, log, go, name = sys.argv[1:5]
for number in range(3):
    start(Path(folder), ["score", log, go, f"{name}{number}"], name, "b", launch=Launch(tuple(sys.argv[5:]), 5.0))
print("started", flush=True)
input()
"""


def starter(folder: Path, tmp_path: Path, name: str) -> subprocess.Popen[str]:
    """A program that starts three jobs, says so, and stays."""
    words = [str(folder), str(tmp_path / "log"), str(tmp_path / "go"), name, *python(WAITING).executable]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", STARTER, *words], start_new_session=True, **pipes)


def test_two_starters_at_once_and_the_death_of_both(folder: Path, tmp_path: Path) -> None:
    with starter(folder, tmp_path, "a") as one, starter(folder, tmp_path, "b") as other:
        for program in (one, other):
            assert program.stdout.readline() == "started\n"
            os.killpg(program.pid, signal.SIGKILL)
    assert len(jobs(folder)) == 6
    assert {job.state for job in jobs(folder)} <= {*LIVING}
    (tmp_path / "go").touch()
    assert [over(job).state for job in jobs(folder)] == ["done"] * 6
    log = log_of(tmp_path)
    assert [word for word, *_ in log] == ["begin", "end"] * 6, "never two at once"
    assert [name for _, name, _ in log[::2]] == [job.spec.argv[-1] for job in reversed(jobs(folder))]
    assert all(before.ended <= after.started for after, before in pairwise(jobs(folder)))


def test_a_killed_worker_takes_its_command_along_and_the_queue_goes_on(begin: Begin, tmp_path: Path) -> None:
    log, go = str(tmp_path / "log"), tmp_path / "go"
    first, second, third = (begin(WAITING, log, str(go), str(number)) for number in range(3))
    until(lambda: log_of(tmp_path) != [])
    until(lambda: read_folder(second.folder).pid is not None)
    command = int(log_of(tmp_path)[0][2])
    assert running(command)
    for job in (first, second):
        os.kill(read_folder(job.folder).pid, signal.SIGKILL)
    assert [over(job).state for job in (first, second)] == ["lost", "lost"]
    until(lambda: not running(command))
    go.touch()
    assert over(third).state == "done"
    renewed = again(first, python(WAITING))
    assert (renewed.id > third.id, renewed.title, renewed.spec.argv) == (True, first.title, first.spec.argv)
    assert over(renewed).state == "done"
    assert [line[:2] for line in log_of(tmp_path)] == [
        ["begin", "0"], ["begin", "2"], ["end", "2"], ["begin", "0"], ["end", "0"],
    ]  # fmt: skip
    assert read_folder(first.folder).state == "lost"
    forget(first)


def test_a_command_without_its_worker_is_not_lost_and_keeps_its_turn(begin: Begin, tmp_path: Path) -> None:
    log, go = str(tmp_path / "log"), tmp_path / "go"
    first, second = begin(ALONE, log, str(go), "0"), begin(WAITING, log, str(go), "1")
    until(lambda: log_of(tmp_path) != [])
    worker = read_folder(first.folder).pid
    os.kill(worker, signal.SIGKILL)
    until(lambda: not running(worker))
    time.sleep(0.5)  # the second one looks whether it is its turn
    assert [read_folder(job.folder).state for job in (first, second)] == ["running", "queued"]
    with (first.folder.parent / "lock").open("r+") as queue, pytest.raises(BlockingIOError):
        fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
    go.touch()
    assert [over(job).state for job in (first, second)] == ["lost", "done"]
    assert [line[:2] for line in log_of(tmp_path)] == [[word, name] for name in "01" for word in ("begin", "end")]


def test_nobody_runs_while_the_queue_is_held(begin: Begin, folder: Path) -> None:
    """The order of ids alone would not do: an older job may be seen late."""
    folder.mkdir()
    with (folder / "lock").open("w") as queue:
        fcntl.flock(queue, fcntl.LOCK_EX)
        job = begin("pass")
        until(lambda: read_folder(job.folder).pid is not None)
        time.sleep(0.5)
        assert read_folder(job.folder).state == "queued"
    assert over(job).state == "done"


def test_a_planted_link_in_place_of_the_queue_is_not_followed(begin: Begin, folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / "lock").symlink_to(tmp_path / "outside")
    job = over(begin("print('never')"))
    assert job.state == "lost"
    assert "Too many levels of symbolic links" in job.lines[-1]
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("loading\nError: a\nb\n\nmore", "a\nb"),
        ("Error: first\nError: last", "last"),
        ("Usage: u2a score\n\nError: No such option: --x", "No such option: --x"),
        ("bar 10%\n  Error: indented\nthe end", "bar 10%\nthe end"),
        ("x\n\nTraceback (most recent call last):\n  File 1\n    f()\nOSError: 1\nsecond", "OSError: 1\nsecond"),
        ("Error: old\nTraceback (most recent call last):\n  File\nKeyError: 'a'", "Error: old\nKeyError: 'a'"),
        ("", "The command failed without a word."),
        ("\n \n", "The command failed without a word."),
        ("Error: " + "x" * 9000, "x" * 4000),
        ("y" + "x" * 9000, "x" * 4000),
    ],
)  # fmt: skip
def test_the_paragraph_of_an_error(output: str, error: str) -> None:
    assert error_paragraph(output.split("\n")) == error
