"""What a run works on: θ0 can be put back at any moment, references are cached, and what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from u2a_core.bundle import Bundle
from u2a_core.errors import DataError, UnlearningError
from u2a_core.influence import reference
from u2a_core.models.loading import LoadOptions
from u2a_core.unlearning.material import Material, loaded_options

Make = Callable[..., Material]


def without_retain(bundle: Bundle) -> Bundle:
    """The bundle as it would be with every positive left out."""
    object.__setattr__(bundle.pairs, "retain", ())
    return bundle


def test_every_candidate_has_its_roles(make_material: Make) -> None:
    for objective, roles in {"ga": 1, "dpo": 2, "yao": 3}.items():
        material = make_material(objective)
        assert list(material.candidates) == [one.id for one in material.bundle.pairs.forget]
        assert {len(one) for one in material.candidates.values()} == {roles}
        examples = {one.id: one for one in material.bundle.pairs.forget}
        for one, (own, *_) in material.candidates.items():
            assert own.id == one
            assert "".join(own.token_texts[:-1]) == examples[one].response


def test_references_are_log_probabilities_at_the_start(
    make_exact: Make, moved: Callable[..., None], naive_logits: Callable[..., Tensor]
) -> None:
    material = make_exact("dpo")
    with torch.no_grad():
        expected = {
            one: [
                naive_logits(material.policy, role).log_softmax(-1)[
                    range(len(role.response_ids)), list(role.response_ids)
                ]
                for role in roles
            ]
            for one, roles in material.candidates.items()
        }
    moved(material, 0.2)  # asked for late, they are still those of θ0
    assert material.references is not None
    for one, roles in material.references.items():
        for found, wanted in zip(roles, expected[one], strict=True):
            assert torch.allclose(found, wanted, rtol=0, atol=1e-10)
    assert make_exact("ga").references is None


def test_references_are_computed_once(make_material: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_material("npo")
    assert first.references is not None
    assert first.pairs("pa_train")

    def again(*_: Any) -> Tensor:
        raise AssertionError("computed again")

    monkeypatch.setattr(reference, "response_logps", again)
    second = make_material("npo")
    assert second.references is not None
    assert [pair.chosen_reference for pair in second.pairs("pa_train")] == [
        pair.chosen_reference for pair in first.pairs("pa_train")
    ]
    for one in second.references:
        assert torch.equal(second.references[one][0], first.references[one][0])


def test_the_start_can_be_put_back_for_a_moment(make_material: Make, moved: Callable[..., None]) -> None:
    material = make_material()
    moved(material)
    now = {name: one.detach().clone() for name, one in material.policy.parameters().items()}

    def interrupted() -> None:
        with material.at_start():
            for name, one in material.policy.parameters().items():
                assert torch.equal(one, material.start[name])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    for name, one in material.policy.parameters().items():
        assert torch.equal(one, now[name])
        assert not torch.equal(one, material.start[name])


def test_reset_copies(make_material: Make, moved: Callable[..., None]) -> None:
    material = make_material()
    start = {name: one.clone() for name, one in material.start.items()}
    moved(material)
    material.reset()
    for name, one in material.policy.parameters().items():
        assert torch.equal(one, start[name])
        one.data += 1.0
        assert torch.equal(material.start[name], start[name]), "θ0 itself is never written to"
    theta = {name: one + 2.0 for name, one in start.items()}
    material.reset(theta)
    assert all(torch.equal(one, theta[name]) for name, one in material.policy.parameters().items())


def test_a_lora_starts_at_the_policy(make_material: Make, naive_logits: Callable[..., Tensor]) -> None:
    full, lora = make_material(parameters="full"), make_material(parameters="lora", rank=3)
    example = full.retain[0]
    with torch.no_grad():
        assert torch.equal(naive_logits(full.policy, example), naive_logits(lora.policy, example))
    assert {one.shape[0] for name, one in lora.start.items() if "lora_A" in name} == {3}
    assert all("lora" in name for name in lora.start)


@pytest.mark.parametrize(("objective", "retention"), [("graddiff", None), ("npo", "kl"), ("ga", "nll"), ("yao", None)])
def test_retain_data_are_needed_and_not_there(
    objective: str, retention: str | None, make_config: Callable[..., Any], bundle: Bundle
) -> None:
    with pytest.raises(UnlearningError, match=rf"objective {objective} needs retain data.*none.*--retention none"):
        Material(without_retain(bundle), make_config(objective, retention), show=False)


def test_random_answers_need_retain_data_too(make_config: Callable[..., Any], bundle: Bundle) -> None:
    material = Material(without_retain(bundle), make_config("yao", "none"), show=False)
    with pytest.raises(DataError, match="no retain examples to draw random answers from"):
        _ = material.candidates


def test_a_method_without_retention_needs_no_retain_data(make_config: Callable[..., Any], bundle: Bundle) -> None:
    material = Material(without_retain(bundle), make_config("npo"), show=False)
    assert material.retain == []
    assert len(material.candidates) == 10


def test_what_was_loaded_is_told(tmp_path: Path) -> None:
    assert loaded_options(LoadOptions("cpu")) == {"device": "cpu", "dtype": "float32"}
    assert loaded_options(LoadOptions("cpu", "bfloat16")) == {"device": "cpu", "dtype": "bfloat16"}


def test_all_weights_are_trained_in_float32_under_bfloat16(make_material: Make) -> None:
    half = make_material(options=LoadOptions("cpu", "bfloat16"))
    assert half.autocast
    assert {one.dtype for one in half.policy.parameters().values()} == {torch.float32}
    lora = make_material(parameters="lora", options=LoadOptions("cpu", "bfloat16"))
    assert not lora.autocast
    assert {one.dtype for one in lora.policy.parameters().values()} == {torch.float32}
    assert {one.dtype for one in lora.policy.model.parameters()} == {torch.float32, torch.bfloat16}
    assert not make_material().autocast
