"""A checkpoint holds a solver's state to the bit, and is there whole or not at all."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from u2a_core.errors import StorageError
from u2a_core.unlearning import checkpoint
from u2a_core.unlearning.checkpoint import load_state, save_state
from u2a_core.unlearning.inner import Check, SolverState

CPU = torch.device("cpu")
CURVE = [
    Check(0, None, 1 / 3, 0.0, math.log(0.5), None, 100.0),
    Check(5, -0.1 - 0.2, 2 / 3, 1e-17, -0.6, 0.01, 101.5),
    Check(7, -0.5, None, None, -0.5, 0.01, 101.5),
]


def stepped(kind: Callable[..., torch.optim.Optimizer], **settings: float) -> SolverState:
    """A state after two steps of an optimizer on two odd tensors."""
    numbers = torch.Generator().manual_seed(0)
    theta = {
        "model.a.weight": nn.Parameter(torch.randn(3, 5, generator=numbers).T),  # not contiguous
        "model.b": nn.Parameter(torch.randn(4, generator=numbers, dtype=torch.float64)),
    }
    optimizer = kind(list(theta.values()), lr=0.1 + 0.2, **settings)
    for _ in range(2):
        for one in theta.values():
            one.grad = torch.randn(one.shape, generator=numbers, dtype=one.dtype)
        optimizer.step()
    plain = {name: one.detach().clone() for name, one in theta.items()}
    return SolverState(7, plain, plain, 7, optimizer.state_dict(), list(CURVE), 12.5)


STATES = {
    "adamw": lambda: stepped(torch.optim.AdamW, weight_decay=0.0),
    "sgd": lambda: stepped(torch.optim.SGD),
    "sgd with momentum": lambda: stepped(torch.optim.SGD, momentum=0.9),
}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


@pytest.mark.parametrize("kind", STATES)
def test_what_is_read_is_what_was_written(kind: str, tmp_path: Path) -> None:
    state = STATES[kind]()
    save_state(tmp_path / "state.safetensors", state)
    found = load_state(tmp_path / "state.safetensors", CPU)
    assert found is not None
    assert same(found.theta, state.theta)
    assert same(found.good, state.theta)
    assert (found.step, found.good_step, found.seconds, found.curve) == (7, 7, 12.5, CURVE)
    assert found.optimizer["state"].keys() == state.optimizer["state"].keys()
    for index, moments in state.optimizer["state"].items():
        tensors = {name: value for name, value in moments.items() if isinstance(value, Tensor)}
        assert same({name: found.optimizer["state"][index][name] for name in tensors}, tensors)
        assert found.optimizer["state"][index].keys() == moments.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize("kind", STATES)
def test_an_optimizer_goes_on_from_it(kind: str, tmp_path: Path) -> None:
    state = STATES[kind]()
    save_state(tmp_path / "state.safetensors", state)
    found = load_state(tmp_path / "state.safetensors", CPU)
    assert found is not None
    ends = []
    for one in (state, found):
        theta = [nn.Parameter(value.clone()) for value in one.theta.values()]
        maker = torch.optim.AdamW if kind == "adamw" else torch.optim.SGD
        optimizer = maker(theta, lr=9.0)
        optimizer.load_state_dict(one.optimizer)
        for value in theta:
            value.grad = torch.ones_like(value)
        optimizer.step()
        ends.append({str(place): value.detach() for place, value in enumerate(theta)})
    assert same(*ends)
    assert not torch.equal(ends[0]["1"], state.theta["model.b"])


def test_there_is_none(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state.safetensors", CPU) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "no metadata"])
def test_one_that_cannot_be_read_is_none(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, STATES["adamw"]())
    content = path.read_bytes()
    if damage == "no metadata":
        checkpoint.save_file({"theta.a": torch.ones(2)}, path)
    else:
        path.write_bytes({"cut": content[:-9], "empty": b"", "other": b"not safetensors at all"}[damage])
    assert load_state(path, CPU) is None


def test_a_failed_write_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, STATES["sgd"]())
    before = path.read_bytes()

    def full(tensors: dict[str, Tensor], part: Path, **_: object) -> None:
        Path(part).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match=r"Could not write .*state.safetensors: No space left"):
        save_state(path, STATES["adamw"]())
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["state.safetensors"]
