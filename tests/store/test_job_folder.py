"""A job's folder as a page reads it: worked by hand, from a living and a dead worker, and from folders that lie."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from u2a_core.store import job_folder as module
from u2a_core.store.job_folder import JobError, Spec, alive, output_lines, read_folder, read_spec

ID = "20260301-101530-000001-0123abcd"
SPEC = {
    "argv": ["score", "/data/my bundle", "--scores", "npo"],
    "title": "Scores npo",
    "bundle": "/data/my bundle",
    "environment": {"CUDA_VISIBLE_DEVICES": "1"},
    "created": 990.0,
}
DONE = {"state": "done", "pid": 42, "started": 1000.0, "ended": 1090.5, "return_code": 0}
RUNNING = {"state": "running", "pid": 42, "started": 1000.0}
LINE = {"phase": "influence", "done": 3, "total": 12, "seconds": 6.0, "seconds_left": 18.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The folder of a job that is done."""
    return job_at(tmp_path / "jobs" / ID, DONE)


def job_at(path: Path, state: dict[str, Any]) -> Path:
    path.mkdir(parents=True)
    (path / "spec.json").write_text(json.dumps(SPEC))
    (path / "state.json").write_text(json.dumps(state))
    (path / "output.txt").write_text("one\n\ntwo\n")
    (path / "lock").touch()
    return path


@contextmanager
def worked_on(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Somebody holds the job's lock."""
    with (path / "lock").open("r+") as lock:
        fcntl.flock(lock, kind)
        yield


def says(path: Path, **values: Any) -> None:
    (path / "state.json").write_text(json.dumps({**RUNNING, **values}))


def test_a_done_job_worked_by_hand(path: Path) -> None:
    job = read_folder(path)
    assert (job.id, job.title, job.state, job.error) == (ID, "Scores npo", "done", None)
    assert job.spec == Spec((*SPEC["argv"],), "Scores npo", "/data/my bundle", {"CUDA_VISIBLE_DEVICES": "1"}, 990.0)
    assert (job.pid, job.return_code, job.started, job.ended, job.seconds) == (42, 0, 1000.0, 1090.5, 90.5)
    assert (job.fraction, job.phase, job.seconds_left, job.stopping) == (1.0, None, None, False)
    assert job.lines == ("one", "two")


def test_a_running_job_worked_by_hand(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(path)
    (path / "progress.jsonl").write_text(json.dumps({**LINE, "done": 1}) + "\n" + json.dumps(LINE) + "\n")
    monkeypatch.setattr(module.time, "time", lambda: 1007.0)
    with worked_on(path):
        job = read_folder(path)
        assert (job.state, job.phase, job.fraction, job.seconds, job.seconds_left) == (
            "running", "influence", 0.25, 7.0, 18.0,
        )  # fmt: skip
        assert not job.stopping
        (path / "cancel").touch()
        assert read_folder(path).stopping
    says(path, state="cancelled", ended=1009.0)
    job = read_folder(path)
    assert (job.state, job.fraction, job.seconds, job.seconds_left, job.stopping) == (
        "cancelled", 0.25, 9.0, None, False,
    )  # fmt: skip


def test_a_clock_that_was_set_back_gives_no_negative_time(path: Path) -> None:
    says(path, state="done", ended=999.0)
    assert read_folder(path).seconds == 0.0


@pytest.mark.parametrize("state", ["queued", "running"])
def test_lost_is_who_has_no_worker(path: Path, state: str) -> None:
    says(path, state=state)
    with worked_on(path):
        assert alive(path)
        assert read_folder(path).state == state
    assert not alive(path)
    job = read_folder(path)
    assert job.state == "lost"
    assert "Start it again" in str(job.error)
    assert job.seconds is None
    (path / "lock").unlink()
    assert read_folder(path).state == "lost"


def test_who_looks_does_not_make_others_believe_that_it_lives(path: Path) -> None:
    with worked_on(path, fcntl.LOCK_SH):
        assert not alive(path)


def test_a_job_that_ends_while_it_is_read_is_not_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(path)

    def ends(folder: Path) -> bool:
        says(folder, state="done")
        return False

    monkeypatch.setattr(module, "alive", ends)
    assert read_folder(path).state == "done"


def test_a_failed_job_says_why(path: Path) -> None:
    says(path, state="failed", return_code=2, ended=1001.0, error="There is no bundle.")
    job = read_folder(path)
    assert (job.state, job.return_code, job.error) == ("failed", 2, "There is no bundle.")


@pytest.mark.parametrize(
    ("written", "phase", "fraction"),
    [
        (b"", None, None),
        (json.dumps(LINE).encode() + b'\n{"phase": "infl', "influence", 0.25),
        (json.dumps(LINE).encode() + b"\n\xff\xfe\n[1]\n3\n", "influence", 0.25),
        (json.dumps(LINE).encode() + b"\n" + b"[" * 8000, "influence", 0.25),
        (b'{"phase": "p", "done": 0, "total": 0}\n', "p", None),
        (b'{"phase": "p", "done": NaN, "total": 4}\n', "p", None),
        (b'{"phase": "p", "done": 9, "total": 4, "seconds_left": "soon"}\n', "p", 1.0),
        (b'{"phase": "p", "done": -1, "total": 4}\n', "p", 0.0),
        (b'{"phase": "p"}\n', "p", None),
        (b"\n" * 100_000 + json.dumps(LINE).encode() + b"\n", "influence", 0.25),
    ],
)
def test_progress_is_the_last_whole_line(path: Path, written: bytes, phase: str | None, fraction: float | None) -> None:
    says(path)
    (path / "progress.jsonl").write_bytes(written)
    with worked_on(path):
        job = read_folder(path)
    assert (job.state, job.phase, job.fraction) == ("running", phase, fraction)


def test_output_is_what_a_terminal_would_show(path: Path) -> None:
    (path / "output.txt").write_bytes("loading\nbar 10%\rbar 50%\rbar 100%\r\nΔPA \xff".encode("latin1", "replace"))
    assert read_folder(path).lines == ("loading", "bar 100%", "?PA �")


def test_only_the_end_of_long_output_is_read(path: Path) -> None:
    with (path / "output.txt").open("wb") as stream:
        stream.truncate(1 << 36)  # 64 GiB, none of them on disk
        stream.seek(0, os.SEEK_END)
        stream.write(b"".join(b"\nline %d" % number for number in range(100)))
    assert read_folder(path).lines == tuple(f"line {number}" for number in range(80, 100))
    assert len(output_lines(path, 100)) < 20


BROKEN_SPECS = {
    "no text": b"",
    "half": b'{"argv": ["score"',
    "a list": b"[]",
    "nothing in it": b"{}",
    "nested": b"[" * 100_000,
    "not text": b"\xff\xfe",
    "too long": json.dumps({"more": "x" * (1 << 20), **SPEC}).encode(),
    **{
        f"{key}={value!r}": json.dumps({**SPEC, key: value}).encode()
        for key, value in (
            ("argv", []),
            ("argv", "score"),
            ("argv", 3),
            ("argv", ["score", 3]),
            ("argv", [["score"]]),
            ("argv", ["score", "a\0b"]),
            ("argv", ["serve", "b"]),
            ("argv", ["/bin/sh", "-c", "true"]),
            ("title", None),
            ("bundle", 1),
            ("created", "now"),
            ("created", float("nan")),
            ("environment", 1),
            ("environment", {"LD_PRELOAD": "/evil.so"}),
            ("environment", {"OMP_NUM_THREADS": 1}),
        )
    },
}


def assert_unreadable(path: Path, *said: str) -> None:
    job = read_folder(path)
    assert (job.state, job.title, job.spec, job.lines) == ("unreadable", path.name, None, ())
    for part in (str(path), "is no readable job", "Remove it", *said):
        assert part in str(job.error)


@pytest.mark.parametrize("content", BROKEN_SPECS.values(), ids=BROKEN_SPECS)
def test_a_broken_spec(path: Path, content: bytes) -> None:
    (path / "spec.json").write_bytes(content)
    assert_unreadable(path)
    with pytest.raises((ValueError, KeyError, TypeError, JobError)):
        read_spec(path)


@pytest.mark.parametrize(
    "content", ["", "3", "{}", '{"state": "lost"}', '{"state": "unreadable"}', '{"state": 3}', '{"state": ["done"]}']
)
def test_a_broken_state(path: Path, content: str) -> None:
    (path / "state.json").write_text(content)
    assert_unreadable(path)


def test_values_of_other_types_are_not_known(path: Path) -> None:
    says(path, state="done", pid="1", started=True, ended=[], return_code=True, error=None)
    job = read_folder(path)
    assert (job.state, job.pid, job.started, job.ended, job.return_code) == ("done", None, None, None, None)


@pytest.mark.parametrize("name", ["spec.json", "state.json", "output.txt", "progress.jsonl", "lock"])
def test_nothing_outside_is_read_through_a_link_a_pipe_or_a_folder(path: Path, tmp_path: Path, name: str) -> None:
    says(path)
    (path / "progress.jsonl").touch()
    outside = tmp_path / "outside"
    outside.write_bytes((path / name).read_bytes() + b"\n")
    (path / name).unlink()
    (path / name).symlink_to(outside)
    assert_unreadable(path, "OSError")
    if name == "lock":
        return  # a pipe or a folder may be locked, and is not read
    (path / name).unlink()
    os.mkfifo(path / name)
    assert_unreadable(path, "not a plain file")
    (path / name).unlink()
    (path / name).mkdir()
    assert_unreadable(path, "not a plain file")


@pytest.mark.parametrize("name", ["spec.json", "state.json", "output.txt"])
def test_half_made_folders(path: Path, name: str) -> None:
    (path / name).unlink()
    assert_unreadable(path, "FileNotFoundError", name)


def test_foreign_folders_and_links_to_jobs(path: Path) -> None:
    linked = path.with_name("20260301-101530-000002-0123abcd")
    linked.symlink_to(path)
    assert_unreadable(linked, "no job has such a name")
    path.rename(path.with_name("holiday pictures"))
    assert_unreadable(path.with_name("holiday pictures"), "no job has such a name")


def spec(*argv: Any, **changes: Any) -> Spec:
    return Spec(**{"argv": argv, "title": "t", "bundle": "b", "environment": {}, "created": 0.0, **changes})


@pytest.mark.parametrize("command", ["score", "unlearn", "weigh", "trust", "sketch", "reward", "tune", "evaluate"])
def test_known_commands_may_run(command: str) -> None:
    assert spec(command, "b; rm -rf /", "--top", "0.25").argv[0] == command


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: spec(), r"Jobs run score, unlearn.*; not ''"),
        (lambda: spec("serve", "b"), "not 'serve'"),
        (lambda: spec("export", "b"), "not 'export'"),
        (lambda: spec("--help"), "not '--help'"),
        (lambda: spec("score ", "b"), "not 'score '"),
        (lambda: spec("score", "a\0b"), "without NUL"),
        (lambda: spec("score", "\ud800"), "must be text"),
        (lambda: spec("score", 3), "must be text"),
        (lambda: spec("score", Path("b")), "must be text"),
        (lambda: spec("score", title="a\0"), "without NUL"),
        (lambda: spec("score", created=None), "must be text"),
        (lambda: spec("score", environment={"PATH": "/evil"}), "may set CUDA_VISIBLE_DEVICES.*; not PATH"),
        (lambda: spec("score", environment={"OMP_NUM_THREADS": "1\0"}), "without NUL"),
        (lambda: spec("score", "x" * 100_001), "more than 100,000 characters"),
        (lambda: spec("score", *["x" * 1001] * 100), "more than 100,000 characters"),
    ],
)
def test_other_requests_are_refused(wrong: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        wrong()
