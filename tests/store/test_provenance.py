"""Where a result came from: versions, and the commit of a checkout with a mark where files differ."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

import u2a_core
from u2a_core.store import provenance as module
from u2a_core.store.provenance import git_commit, provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of one commit in which the module seems to lie."""
    folder = tmp_path / "checkout"
    (folder / "u2a_core" / "store").mkdir(parents=True)
    (folder / "kept.txt").write_text("one")
    git(folder, "init", "-q")
    git(folder, "add", "kept.txt")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first", "--no-gpg-sign")
    monkeypatch.setattr(module, "__file__", str(folder / "u2a_core" / "store" / "provenance.py"))
    return folder


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_versions_and_platform_are_plain_values() -> None:
    told = json.loads(json.dumps(provenance()))
    assert told["versions"]["u2a"] == u2a_core.__version__
    for package in ("torch", "transformers", "peft", "accelerate"):
        assert told["versions"][package] == version(package)
    assert told["python"] == platform.python_version()
    assert told["platform"] == platform.platform()
    assert "git_commit" in told


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("torch", "no-such-package"))
    versions = provenance()["versions"]
    assert versions["no-such-package"] is None
    assert versions["torch"] == version("torch")


def test_the_commit_of_a_clean_checkout(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert len(commit) == 40
    (checkout / "untracked.txt").write_text("results and caches do not count")
    assert git_commit() == commit
    assert provenance()["git_commit"] == commit


def test_a_checkout_with_changes_is_marked(checkout: Path) -> None:
    (checkout / "kept.txt").write_text("two")
    assert git_commit() == git(checkout, "rev-parse", "HEAD") + "+"


def test_no_checkout_no_commit(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also not that of some other checkout around an installed package."""
    inside = checkout / "site-packages" / "u2a_core" / "store" / "provenance.py"
    monkeypatch.setattr(module, "__file__", str(inside))
    assert git_commit() is None


def test_a_checkout_that_git_cannot_read(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "")
        assert git_commit() is None, "no git"
    (checkout / ".git" / "HEAD").write_text("nonsense")
    assert git_commit() is None
