"""Several processes: shares that add up, and `accelerate launch` with two of them ends where one does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from u2a_core.bundle import Bundle
from u2a_core.cli import main
from u2a_core.models.loading import LoadOptions
from u2a_core.unlearning.processes import Processes, processes

OPTIONS = (
    "--all", "--objective", "npo", "--retention", "kl", "--device", "cpu", "--params", "full", "--optimizer", "sgd",
    "--learning-rate", "0.05", "--steps", "4", "--batch-size", "5", "--check-every", "2", "--clip", "0.5",
    "--retain-budget", "100", "--trust-region", "100",
)  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 5, 12])
def test_shares_are_disjoint_and_together_the_whole(count: int, size: int) -> None:
    items = list(range(size))
    shares = [list(Processes(rank, count).share(items)) for rank in range(count)]
    assert sorted(one for share in shares for one in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_process_alone_adds_nothing_and_waits_for_nobody() -> None:
    alone = Processes()
    values = torch.tensor([1.0, 2.0])
    assert alone.main
    assert alone.total(values) is values
    alone.wait()
    assert not Processes(1, 2).main


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    options = LoadOptions("cpu")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes(options) == (Processes(), options)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert processes(options) == (Processes(), options)


@pytest.mark.slow
def test_two_processes_end_where_one_does(bundle: Bundle, tmp_path: Path) -> None:
    """With a cold cache, which both of them would fill."""
    done = CliRunner().invoke(main, ["unlearn", str(bundle.path), *OPTIONS, "--run", "one"])
    assert done.exit_code == 0, (done.output, done.exception)
    for file in (bundle.path / "cache").glob("reference-*"):
        file.unlink()
    # `accelerate launch --cpu --num_processes 2` starts one process alone, unless there is MPI (accelerate 1.15)
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        "-m", "u2a_core.cli", "unlearn", str(bundle.path), *OPTIONS, "--run", "two",
    ]  # fmt: skip
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("kept step: 4") == 1, "one process prints"
    one, two = (load_file(bundle.path / "runs" / name / "model" / "model.safetensors") for name in ("one", "two"))
    start = load_file(Path(bundle.policy_path) / "model.safetensors")
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert moved > 1e-3
    assert apart <= 1e-6
    assert sorted(path.name for path in (bundle.path / "runs").iterdir()) == ["one", "two"]
    curves = [(bundle.path / "runs" / name / "progress.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert len(curves[0]) == len(curves[1]) == 3
