"""What is written of a comparison is read back; what is not whole, or of something else, is refused with the remedy."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from u2a_core.bundle import Bundle, open_bundle
from u2a_core.errors import BundleError
from u2a_core.store.comparison import (
    SCHEMA,
    Cell,
    cell_path,
    claimed,
    comparison_folder,
    comparison_names,
    read_cell,
    read_comparison,
    working,
    write_cell,
    write_comparison,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """The demo with its results elsewhere."""
    return replace(open_bundle("demo"), results_folder=tmp_path)


def document(bundle: Bundle) -> dict[str, Any]:
    rows = [{"row": "dpo", "title": "DPO", "kind": "baseline", "objective": None, "note": None}]
    return {
        "bundle_hash": bundle.hash, "asked": {}, "command": "u2a", "measured": "2026-11-23", "hardware": "",
        "rows": rows, "notes": ["ß"],
    }  # fmt: skip


def table() -> pd.DataFrame:
    texts = dict.fromkeys((name for name in SCHEMA.names if SCHEMA.field(name).type == "string"), "x")
    own = {
        "row": "dpo",
        "metric": "alignment",
        "objective": None,
        "mean": -0.5,
        "half": None,
        "seeds": [0],
        "values": [-0.5],
    }
    return pd.DataFrame([{**texts, **own}])


def written(bundle: Bundle, name: str = "one", **changes: Any) -> Path:
    folder = comparison_folder(bundle, name)
    with working(folder, {"seeds": 2}, restart=False):
        write_comparison(folder, table(), {**document(bundle), **changes}, "# md", "<p>")
    return folder


def test_a_table_is_read_back(bundle: Bundle) -> None:
    folder = written(bundle)
    found = read_comparison(bundle, "one")
    assert found.folder == folder
    assert found.document["notes"] == ["ß"]
    cell = found.column("alignment").loc["dpo"]
    assert (cell["mean"], list(cell["values"]), list(cell["seeds"])) == (-0.5, [-0.5], [0])
    assert math.isnan(cell["half"])
    assert ((folder / "table.md").read_text(), (folder / "table.html").read_text()) == ("# md", "<p>")
    assert comparison_names(bundle) == ["headline", "one"], "the first came with the bundle"
    with pytest.raises(BundleError, match="no column 'margin'"):
        found.column("margin")


def test_what_is_not_there_or_not_finished_is_told(bundle: Bundle) -> None:
    with pytest.raises(
        BundleError, match=r"no comparison called 'two' \(there are: headline\).*u2a compare demo --name two"
    ):
        read_comparison(bundle, "two")
    with pytest.raises(BundleError, match="cannot be a folder name"):
        read_comparison(bundle, "../one")
    folder = written(bundle)
    (folder / "table.parquet").unlink()
    write_cell(folder, Cell("dpo", 0, {}))
    with pytest.raises(BundleError, match=r"not finished: 1 of its cells are done\. Go on with"):
        read_comparison(bundle, "one")


def test_ones_own_comparison_goes_before_the_shipped_one(bundle: Bundle) -> None:
    assert read_comparison(bundle, "headline").folder == bundle.path / "comparisons" / "headline"
    folder = written(bundle, "headline")
    assert read_comparison(bundle, "headline").folder == folder
    assert comparison_names(bundle) == ["headline"]
    (folder / "table.parquet").unlink()
    with pytest.raises(BundleError, match="not finished: 0 of its cells"):
        read_comparison(bundle, "headline")


def test_a_table_of_another_state_or_version_or_a_damaged_one_is_refused(bundle: Bundle) -> None:
    written(bundle, bundle_hash="other")
    with pytest.raises(BundleError, match=r"another state of the bundle demo.*--restart"):
        read_comparison(bundle, "one")
    folder = written(bundle, format_version=9)
    with pytest.raises(BundleError, match="format version 9"):
        read_comparison(bundle, "one")
    path = folder / "table.parquet"
    seeds = pq.read_table(path, columns=["seeds"]).schema.field("seeds")
    whole = pq.read_table(path)
    found = whole.set_column(whole.schema.get_field_index("seeds"), seeds, pa.array([[0, 1]], seeds.type))
    pq.write_table(
        found.replace_schema_metadata({b"u2a": json.dumps({**document(bundle), "format_version": 1}).encode()}), path
    )
    with pytest.raises(BundleError, match="not as many values as seeds"):
        read_comparison(bundle, "one")
    pq.write_table(
        pq.read_table(path).replace_schema_metadata({b"u2a": json.dumps({"format_version": 1}).encode()}), path
    )
    with pytest.raises(BundleError, match="KeyError: 'bundle_hash'"):
        read_comparison(bundle, "one")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BundleError, match="is no table, or damaged"):
        read_comparison(bundle, "one")


def test_a_cell_is_read_back_without_numbers_that_are_none(tmp_path: Path) -> None:
    write_cell(tmp_path, Cell("dpo", 1, {"alignment": -0.5, "margin": math.nan, "rouge": None}, stopped="over"))
    assert read_cell(tmp_path, "dpo", 1) == Cell("dpo", 1, {"alignment": -0.5, "margin": None, "rouge": None}, "over")
    path = cell_path(tmp_path, "dpo", 1)
    path.rename(cell_path(tmp_path, "dpo", 0))
    for row, seed, words in (("dpo", 0, "it is of dpo with the seed 1"), ("dpo", 1, "No such file")):
        with pytest.raises(BundleError, match=rf"cannot be read.*{words}.*Remove the file"):
            read_cell(tmp_path, row, seed)


def test_one_ask_belongs_to_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    with working(folder, {"seeds": 2, "rows": ("a",)}, False), working(folder, {"seeds": 2, "rows": ["a"]}, False):
        assert json.loads((folder / "spec.json").read_text()) == {"seeds": 2, "rows": ["a"]}
        with pytest.raises(BundleError, match="Another process is working"), working(folder, {}, restart=True):
            pass
    assert [one.name for one in folder.iterdir()] == ["spec.json"]
    with (
        pytest.raises(BundleError, match=r"seeds: 2 then, 3 now.*--restart"),
        working(folder, {"seeds": 3, "rows": ["a"]}, False),
    ):
        pass
    with working(folder, {"seeds": 3}, restart=True):
        assert json.loads((folder / "spec.json").read_text()) == {"seeds": 3}
    (folder / "spec.json").write_text("[")
    with pytest.raises(BundleError, match=r"spec.json cannot be read"), working(folder, {"seeds": 3}, False):
        pass


def test_a_claim_has_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "dpo-0"
    with claimed(path) as first:
        with claimed(path) as second:
            assert (first, second) == (True, False)
        with claimed(tmp_path / "claims" / "dpo-1") as other:
            assert other
    with claimed(path) as again:
        assert again
