"""The cells that are still to be run, by what their folders say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench_cells import DATA, TINY, cells
from n2kit.bench.matrix.commands import commands
from n2kit.bench.matrix.data import BenchData
from n2kit.bench.matrix.expand import expand
from n2kit.bench.matrix.spec import MatrixSpec
from n2kit.bench.runner.context import BenchContext
from n2kit.bench.runner.scheduler import Engine, run_matrix
from n2kit.bench.runner.store import Store
from n2kit.bench.runner.tasks import cache_too_small, pending_cells
from n2kit.errors import BadInput


def test_a_refusal_of_today_leaves_what_was_done(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (cell,) = cells(variant="basic")
    store.write(store.new_row(cell).updated(state="done", metrics={"mrr": {"value": 1.0}}))
    now = replace(cell, refusal=("it cannot be", ""))
    assert [row.state for row in store.collect([now])] == ["refused"]
    assert pending_cells(store, [now]) == []
    assert [row.metrics for row in store.collect([cell])] == [{"mrr": {"value": 1.0}}]


def test_a_row_without_a_state_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (cell,) = cells(variant="basic")
    store.write(store.new_row(cell).updated(state="failed"))
    file = store.cell_folder(cell.key) / "cell.json"
    row = json.loads(file.read_text())
    del row["state"]
    file.write_text(json.dumps(row))
    assert store.read(cell) is None
    assert pending_cells(store, [cell]) == [cell]


def test_what_is_tried_again_is_what_failed(tmp_path: Path) -> None:
    """A cell that is only to be measured again keeps its row, and so its vectors."""
    matrix = MatrixSpec.model_validate(TINY | {"variant": "text_only", "seeds": 2})
    store, nobodys = Store(tmp_path), SimpleNamespace(digests=DATA, image_count={})
    lost, failed = expand(matrix, DATA)
    store.claim(DATA)
    store.write(store.new_row(lost).updated(state="done"))
    store.write(store.new_row(failed).updated(state="failed"))
    bench = BenchContext(matrix, cast(BenchData, nobodys), store)
    engine = SimpleNamespace(run=lambda bench, tasks: None, jobs=1, each=1, ray=False)
    run_matrix(bench, [lost, failed], retry=True, engine=cast(Engine, engine))
    assert [store.read(cell) is not None for cell in (lost, failed)] == [True, False]


def test_vectors_serve_cells_that_are_measured_differently(tmp_path: Path) -> None:
    """And those that want no saliency, where the model was followed; not those that want another one."""
    store = Store(tmp_path)
    kinds = {
        "plain": {}, "ks": {"ks": [5]}, "followed": {"saliency": 4}, "otherwise": {"saliency": 4, "bootstrap": 9},
        "seed": {"seeds": [1]},
    }  # fmt: skip
    found = {name: cells(variant="basic", **more)[0] for name, more in kinds.items()}
    assert len({cell.key for cell in found.values()}) == 5
    store.write(store.new_row(found["followed"]).updated(state="done"))
    assert store.kept_vectors() == {}  # there is a row, and no vectors
    home = store.cell_folder(found["followed"].key)
    (home / "vectors.parquet").write_bytes(b"cut shor")
    assert store.kept_vectors() == {}
    (home / "vectors.parquet").write_bytes(b"whole PAR1")
    (tmp_path / "cells" / "damaged").mkdir()
    for name in ("vectors.parquet", "cell.json"):
        (tmp_path / "cells" / "damaged" / name).write_bytes(b"{PAR1")
    served = {name: cell.source(store.kept_vectors()) for name, cell in found.items()}
    key = found["followed"].key
    assert served == {"plain": key, "ks": key, "followed": key, "otherwise": None, "seed": None}


def test_saliency_is_no_matter_of_cells_that_have_none() -> None:
    def keys(**more: Any) -> list[str]:
        arms = [{"name": "blind", "variant": "basic", "inference": "no-image"}]
        return [cell.key for cell in cells(variant="text_only,only_late_fusion", arms=arms, **more)]

    assert keys(saliency=8) == keys()


def test_only_and_retry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    text, full = cells(variant="text_only,notellm2")
    assert pending_cells(store, [text, full]) == [text, full]
    assert pending_cells(store, [text, full], only="*+text_only") == [text]
    assert pending_cells(store, [text, full], only=full.key) == [full]
    with pytest.raises(BadInput, match="fits no arm and no key"):
        pending_cells(store, [text, full], only="text")
    store.write(store.new_row(text).updated(state="done"))
    assert pending_cells(store, [text, full]) == [text, full]  # its ranks are lost
    (store.cell_folder(text.key) / "ranks.parquet").write_bytes(b"PAR1")
    store.write(store.new_row(full).updated(state="failed"))
    assert pending_cells(store, [text, full]) == []
    assert pending_cells(store, [text, full], retry=True) == [full]


def test_a_folder_of_other_data_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.claim(DATA)
    store.claim(DATA)
    with pytest.raises(BadInput, match="another test_pairs, pool"):
        store.claim(DATA | {"test_pairs": "x", "pool": None})


def test_a_bench_that_was_killed_while_it_made_the_folder_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".data.json.tmp").write_text("{")
    Store(tmp_path).claim(DATA)
    assert (tmp_path / "data.json").is_file()


def test_commands_pass_over_pairs_of_items_that_were_skipped() -> None:
    (cell,) = cells(variant="basic")
    files = {name: Path(name) for name in ("items", "pairs", "test_pairs", "images")}
    for policy, lenient in (("skip", True), ("text-only", False)):
        said = commands(cell, MatrixSpec.model_validate(TINY | files | {"on_bad_image": policy}), Path("out"))
        assert ("--lenient" in said.rpartition("n2kit eval")[2]) == lenient
        assert "--lenient" not in said.rpartition("n2kit eval")[0]


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path) -> None:
    Store(tmp_path).claim(DATA)
    with Store(tmp_path).locked(), pytest.raises(BadInput, match="is in use by process"), Store(tmp_path).locked():
        pass


def test_features_that_have_no_room_are_said() -> None:
    found = cells(vision="siglip:tiny,clip:tiny", variant="basic,text_only", settings={"train.feature_cache_gb": 1})
    values = {cell.vision_key.name: cell.vision_key.values for cell in found if cell.vision_key is not None}
    assert cache_too_small(found, 1000) is None
    many = int(1.5e9 / 4 / sum(values.values()))
    said = cache_too_small(found, many) or ""
    assert f"features of {many:,} images by siglip:tiny and clip:tiny take up to 1.5 GB" in said
    assert "--set train.feature_cache_gb=2" in said
