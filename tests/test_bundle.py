"""A bundle: refused when something is missing or changed, the same wherever it lies, another hash for other content."""

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from u2a_core.bundle import MANIFEST, Bundle, open_bundle, write_manifest
from u2a_core.data.pairs import Message, PreferencePair
from u2a_core.data.splits import SplitSizes, split_pairs
from u2a_core.data.table import write_pairs
from u2a_core.errors import BundleError
from u2a_core.store.files import file_sha256


def pairs(word: str = "good") -> list[PreferencePair]:
    return [
        PreferencePair((Message("user", f"prompt {number}"),), word, "bad", f"rows.jsonl:{number}")
        for number in range(9)
    ]


def fill_model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with a policy inside; its models are never loaded here."""
    path = tmp_path / "bundle"
    fill_model(path / "policy")
    write_pairs(path / "data" / "pairs.parquet", pairs(), split_pairs(pairs(), SplitSizes(), 0))
    data = {"seed": 3, "max_length": 64, "sha256": file_sha256(path / "data" / "pairs.parquet")}
    policy = {"path": "policy", "origin": "scratch:tiny", "tuned": False}
    write_manifest(path, {"format_version": 1, "name": "demo", "data": data, "policy": policy})
    return path


def manifest_of(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / MANIFEST).read_text())


def refusal(folder: Path, *mentions: str) -> str:
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "u2a prepare" in message
    assert str(folder) in message
    for mention in mentions:
        assert mention in message
    return message


def test_what_it_says_of_itself(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert (bundle.name, bundle.seed, bundle.max_length) == ("demo", 3, 64)
    assert bundle.policy_path == str(folder / "policy")
    assert (bundle.adapter_path, bundle.reward, bundle.reward_hash) == (None, None, None)
    assert (bundle.scores_folder, bundle.cache_folder) == (folder / "scores", folder / "cache")
    assert bundle.pairs.pairs == tuple(pairs())


def test_no_bundle_there(tmp_path: Path) -> None:
    refusal(tmp_path / "absent", "There is no bundle at", "no bundle.toml")
    refusal(tmp_path, "There is no bundle at")
    (tmp_path / "file").write_text("x")
    refusal(tmp_path / "file", "There is no bundle at")
    (tmp_path / "odd" / MANIFEST).mkdir(parents=True)
    refusal(tmp_path / "odd", "There is no bundle at")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b"[data]\n[data]\n", b"\x00"])
def test_a_broken_manifest(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    refusal(folder, "bundle.toml cannot be read")


NEEDED = [("data", "sha256"), ("data", "seed"), ("data", "max_length"), ("policy", "path")]


@pytest.mark.parametrize(("section", "key"), NEEDED)
@pytest.mark.parametrize("spoil", ["missing", "another kind"])
def test_missing_and_misused_keys_are_named(folder: Path, section: str, key: str, spoil: str) -> None:
    manifest = manifest_of(folder)
    if spoil == "missing":
        del manifest[section][key]
    else:
        manifest[section][key] = ["odd"]
    write_manifest(folder, manifest)
    message = refusal(folder, f"lacks {section}.{key}, or")
    assert message.count(".sha256") + message.count(".seed") + message.count(".max_length") <= 1


@pytest.mark.parametrize("key", ["kind", "path"])
def test_a_reward_without_its_keys_is_refused(folder: Path, key: str) -> None:
    reward = {"kind": "classifier", "path": "reward"}
    write_manifest(folder, {**manifest_of(folder), "reward": reward})
    assert open_bundle(folder).reward is not None
    del reward[key]
    write_manifest(folder, {**manifest_of(folder), "reward": reward})
    refusal(folder, f"lacks reward.{key}, or")
    write_manifest(folder, {**manifest_of(folder), "reward": "odd"})
    refusal(folder, "lacks reward.kind, reward.path, or")


def test_missing_sections_and_name(folder: Path) -> None:
    whole = manifest_of(folder)
    for lost, said in (
        ("policy", "policy.path"),
        ("data", "data.sha256, data.seed, data.max_length"),
        ("name", "name"),
    ):
        write_manifest(folder, {key: value for key, value in whole.items() if key != lost})
        refusal(folder, f"lacks {said}, or")
    write_manifest(folder, {**whole, "policy": "policy"})
    refusal(folder, "lacks policy.path, or")


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_another_version(folder: Path, version: Any) -> None:
    manifest = {key: value for key, value in manifest_of(folder).items() if key != "format_version"}
    write_manifest(folder, manifest if version is None else {**manifest, "format_version": version})
    refusal(folder, f"has format_version {version!r}, not 1", "this version")


def test_data_that_changed_is_refused(folder: Path) -> None:
    path = folder / "data" / "pairs.parquet"
    write_pairs(path, pairs("better"), split_pairs(pairs("better"), SplitSizes(), 0))
    with pytest.raises(
        BundleError, match=rf"{re.escape(str(path))} changed since .* SHA-256 .*bundle.toml.*u2a prepare"
    ):
        _ = open_bundle(folder).pairs
    path.unlink()
    with pytest.raises(BundleError, match=r"lacks its pairs"):
        _ = open_bundle(folder).pairs


def test_other_splits_are_other_data(folder: Path) -> None:
    path = folder / "data" / "pairs.parquet"
    write_pairs(path, pairs(), split_pairs(pairs(), SplitSizes(), 1))
    with pytest.raises(BundleError, match="changed since"):
        _ = open_bundle(folder).pairs


Change = Callable[[Path, dict[str, Any]], dict[str, Any] | None]


def add_adapter(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    fill_model(folder / "adapter", b"adapter")
    return {**manifest, "policy": {**manifest["policy"], "adapter": "adapter"}}


def add_reward(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    fill_model(folder / "reward", b"reward")
    return {**manifest, "reward": {"kind": "classifier", "path": "reward", "beta": 0.1}}


def changed_weights(name: str) -> Change:
    def change(folder: Path, manifest: dict[str, Any]) -> None:
        (folder / name / "model.safetensors").write_bytes(b"other weights")

    return change


def changed_entry(section: str, key: str, value: Any) -> Change:
    return lambda _, manifest: {**manifest, section: {**manifest[section], key: value}}


CHANGES: dict[str, list[Change]] = {
    "policy weights": [changed_weights("policy")],
    "policy tokenizer": [lambda folder, _: (folder / "policy" / "tokenizer.json").write_text("{}") and None],
    "data": [changed_entry("data", "sha256", "0" * 64)],
    "length": [changed_entry("data", "max_length", 65)],
    "adapter": [add_adapter],
    "adapter weights": [add_adapter, changed_weights("adapter")],
    "reward": [add_reward],
    "reward weights": [add_reward, changed_weights("reward")],
    "reward kind": [add_reward, changed_entry("reward", "kind", "implicit")],
    "reward beta": [add_reward, changed_entry("reward", "beta", 0.2)],
}


@pytest.mark.parametrize("name", list(CHANGES))
def test_the_hash_follows_everything_that_scores_depend_on(folder: Path, name: str) -> None:
    hashes = [open_bundle(folder).hash]
    for change in CHANGES[name]:
        manifest = change(folder, manifest_of(folder))
        if manifest:
            write_manifest(folder, manifest)
        hashes.append(open_bundle(folder).hash)
    assert len(set(hashes)) == len(hashes)
    assert open_bundle(folder).hash == hashes[-1]


def test_the_hash_follows_nothing_else(folder: Path) -> None:
    before = open_bundle(folder).hash
    write_manifest(folder, {**manifest_of(folder), "name": "other", "tuning": {"seconds": 3}})
    (folder / "scores").mkdir()
    (folder / "scores" / "default.parquet").write_bytes(b"x")
    assert open_bundle(folder).hash == before


def test_a_bundle_can_be_moved(folder: Path, tmp_path: Path) -> None:
    manifest = add_reward(folder, add_adapter(folder, manifest_of(folder)))
    write_manifest(folder, manifest)
    before = open_bundle(folder).hash
    moved = Path(shutil.move(folder, tmp_path / "elsewhere"))
    bundle = open_bundle(moved)
    assert bundle.hash == before
    assert bundle.policy_path == str(moved / "policy")
    assert bundle.adapter_path == str(moved / "adapter")
    assert bundle.reward is not None
    assert bundle.reward.path == str(moved / "reward")
    assert bundle.pairs.pairs == tuple(pairs())


def test_it_opens_by_relative_path_and_from_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_bundle(folder).hash
    monkeypatch.chdir(folder.parent)
    assert open_bundle("bundle").hash == before
    assert Path(open_bundle("bundle").policy_path).is_dir()
    monkeypatch.chdir(folder)
    assert open_bundle(".").hash == before
    monkeypatch.setenv("HOME", str(folder.parent))
    assert open_bundle("~/bundle").hash == before


def test_models_elsewhere_are_absolute_or_hub_ids(folder: Path, tmp_path: Path) -> None:
    outside = fill_model(tmp_path / "outside")
    write_manifest(folder, {**manifest_of(folder), "policy": {"path": str(outside), "origin": "x"}})
    before = open_bundle(folder)
    assert before.policy_path == str(outside)
    moved = open_bundle(shutil.move(folder, tmp_path / "elsewhere"))
    assert moved.policy_hash == before.policy_hash
    write_manifest(moved.path, {**moved.manifest, "policy": {"path": "someone/model", "origin": "x"}})
    assert open_bundle(moved.path).policy_path == "someone/model"
    with pytest.raises(BundleError, match="someone/model is neither a folder here nor in the local hub cache"):
        _ = open_bundle(moved.path).hash


def test_paths_as_the_manifest_stores_them(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(folder)
    assert bundle.relative(folder / "policy-tuned") == "policy-tuned"
    assert bundle.relative(folder / "a" / ".." / "reward") == "reward"
    assert bundle.relative(tmp_path / "bundle-other" / "policy") == str(tmp_path / "bundle-other" / "policy")
    monkeypatch.chdir(folder.parent)
    assert bundle.relative(Path("bundle/reward")) == "reward"
    assert open_bundle("bundle").relative(Path("bundle/reward")) == "reward"


def test_updates_replace_whole_sections_at_once(folder: Path) -> None:
    bundle = open_bundle(folder)
    with_reward = bundle.updated(reward={"kind": "classifier", "path": "reward", "beta": 0.5})
    assert with_reward.reward is not None
    assert (with_reward.reward.kind, with_reward.reward.beta) == ("classifier", 0.5)
    assert bundle.reward is None, "an opened bundle does not change under its reader"
    assert (
        open_bundle(folder).manifest
        == with_reward.manifest
        == {**bundle.manifest, **{"reward": with_reward.manifest["reward"]}}
    )
    without = with_reward.updated(reward=None)
    assert open_bundle(folder).manifest == without.manifest == bundle.manifest
    assert [file.name for file in folder.glob("*.part")] == []


def test_a_failed_update_keeps_the_manifest(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(TypeError):
        open_bundle(folder).updated(reward={"kind": object()})
    assert (folder / MANIFEST).read_bytes() == before


def test_the_implicit_reward_has_a_default_beta(folder: Path) -> None:
    bundle = Bundle(folder, {**manifest_of(folder), "reward": {"kind": "implicit", "path": "x/y"}})
    assert bundle.reward is not None
    assert bundle.reward.beta == 0.1
