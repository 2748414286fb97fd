"""`first_order` against captum's TracInCP, an implementation by others of the same inner product of gradients.

With one checkpoint θ0 and learning rate η, TracIn(i, test) = η ∇ℓ_test·∇ℓ_i: how much a training step on i lowers the
test loss. Take J = −mean of ℓ_test, so ∇J = −mean of ∇ℓ_test. GA unlearns by φ_i = −ℓ_i, hence

    ΔPA_i = −(1/nλ) ∇J·∇φ_i = +(1/nλ) ∇J·∇ℓ_i = −(1/nλη) mean over test of TracIn(i, test).

The sign is as it should be: what helps when it is trained on (a proponent, TracIn > 0) hurts when it is unlearned
(ΔPA < 0).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from captum.influence import TracInCP
from torch import Tensor, nn
from torch.utils.data import TensorDataset

LEARNING_RATE, DAMPING = 1.0, 2.0
TRAIN, TEST = 12, 5


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def class_logps(model: nn.Module, batch: Any) -> Tensor:
    """log p(target | input), [N]."""
    return model(batch.inputs).log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]


def load_checkpoint(model: nn.Module, path: str) -> float:
    """What captum asks for: put the checkpoint into the model, return its learning rate."""
    model.load_state_dict(torch.load(path, weights_only=True))
    return LEARNING_RATE


@pytest.mark.parametrize("backend", ["forward", "reverse"])
def test_influence_equals_negated_tracin(backend: str, tmp_path: Path, row_batch: Any, row_influence: Any) -> None:
    model = network()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(TRAIN + TEST, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (TRAIN + TEST,), generator=generator)
    train, test = row_batch(inputs[:TRAIN], targets[:TRAIN]), row_batch(inputs[TRAIN:], targets[TRAIN:])
    torch.save(model.state_dict(), tmp_path / "theta0.pt")
    tracin = TracInCP(
        network(),
        TensorDataset(train.inputs, train.targets),
        [str(tmp_path / "theta0.pt")],
        checkpoints_load_func=load_checkpoint,
        loss_fn=nn.CrossEntropyLoss(reduction="none"),
        batch_size=TRAIN,
    )
    outside = tracin.influence((test.inputs, test.targets))  # [TEST, TRAIN]
    value = class_logps(model, test).mean()  # J
    gradient = dict(
        zip(dict(model.named_parameters()), torch.autograd.grad(value, list(model.parameters())), strict=True)
    )
    found = row_influence(backend, model, class_logps, train, gradient, DAMPING)
    expected = -outside.mean(0) / (TRAIN * DAMPING * LEARNING_RATE)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)
    assert float(found.max()) > 0 > float(found.min())
