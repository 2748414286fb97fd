"""Invariants between rooms: who may import what, in processes of their own; and what the wheel carries."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WITHOUT_TORCH = ("store", "figures", "dashboard")
ENGINE = ("data", "models", "objectives", "influence", "unlearning", "evaluation", "store")

BLOCKING = """
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise ModuleNotFoundError(f'{{name}} is blocked', name=name)
sys.meta_path.insert(0, Refuse())
for module in {modules!r}:
    importlib.import_module(module)
"""


def modules_of(*rooms: str) -> list[str]:
    files = [file for room in rooms for file in sorted((ROOT / "u2a_core" / room).rglob("*.py"))]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]


def imports_without(blocked: set[str], modules: list[str]) -> None:
    code = BLOCKING.format(blocked=blocked, modules=modules)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]


def test_the_web_process_never_imports_torch() -> None:
    own = ("influence.what_if_bundle", "influence.candidate_similarity", "evaluation.agreement", "evaluation.verdict")
    modules = [*modules_of(*WITHOUT_TORCH), *(f"u2a_core.{name}" for name in own), "u2a_core.bundle", "u2a_core.cli"]
    assert "u2a_core.figures.influence" in modules
    imports_without({"torch", "transformers", "peft"}, modules)


def test_only_pages_app_and_dashboard_import_streamlit() -> None:
    imports_without({"streamlit"}, [*modules_of("store", "figures", *ENGINE), "u2a_core.cli"])


def test_the_engine_imports_without_the_packages_of_the_studio() -> None:
    modules = [*modules_of(*ENGINE), "u2a_core.bundle", "u2a_core.doctor", "u2a_core.preparation"]
    imports_without({"streamlit", "plotly", "datasets", "captum", "trl", "tomli_w"}, modules)


def test_the_blocking_itself_works() -> None:
    code = BLOCKING.format(blocked={"plotly"}, modules=["u2a_core.figures.influence"])
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "plotly is blocked" in run.stderr


def test_no_module_is_longer_than_300_lines() -> None:
    folders = ("u2a_core", "pages", "benchmarks")
    files = [ROOT / "app.py", *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))]
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert len(lengths) > 40
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_the_wheel_carries_the_studio_and_the_data_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        "u2a_core/_studio/app.py",
        "u2a_core/_studio/pages/influence.py",
        "u2a_core/_studio/pages/low_reward.py",
        "u2a_core/_studio/.streamlit/config.toml",
        "u2a_core/figures/page.html",
        "u2a_core/data/demo/harmlessness.toml",
        "u2a_core/demo/bundle/bundle.toml",
        "u2a_core/demo/bundle/MODEL_CARD.md",
        "u2a_core/demo/bundle/data/pairs.parquet",
        "u2a_core/demo/bundle/policy-tuned/model.safetensors",
        "u2a_core/demo/bundle/reward/model.safetensors",
        "u2a_core/demo/bundle/scores/default.parquet",
        "u2a_core/demo/bundle/sketches/default/candidates.f16",
        "u2a_core/demo/bundle/comparisons/headline/table.parquet",
        "u2a_core/demo/bundle/six-ways/npo/table.parquet",
    }
    assert expected <= names
    assert not any(name.startswith(("tests/", "cache/")) for name in names)
