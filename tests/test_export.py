"""n2kit export: the same vectors in sentence-transformers, ONNX, faiss, Parquet and MTEB; nothing else is replaced."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import n2kit
from n2kit.data.items import Item
from n2kit.embed.encode import encode
from n2kit.errors import BadInput, Unavailable
from n2kit.export import export
from n2kit.export.atlas import plane


@pytest.fixture(scope="module")
def index(workspace: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    items, folder = n2kit.read_items(workspace / "items.jsonl"), tmp_path_factory.mktemp("index")
    vectors = n2kit.embed(tiny_bundle, items, images=workspace / "images", out=folder / "vectors.parquet")
    n2kit.Index.build(vectors, items=items, images=workspace / "images").save(folder / "index")
    return folder / "index"


def given(workspace: Path) -> tuple[list[Any], list[Any]]:
    """Inputs as sentence-transformers takes them, and the same for n2kit: texts, dicts, paths, Pillow's images, mixed."""
    from PIL import Image

    path = workspace / "images" / "noto_3.png"
    theirs = [
        "oak",
        {"title": "oak", "topics": ["a", "b"], "image": str(path)},
        str(path),
        Image.open(path),
        {"text": "oak"},
    ]
    ours = ["oak", {"title": "oak", "topics": ["a", "b"], "image": path}, path, path, "oak"]
    return theirs, ours


@pytest.mark.slow
def test_sentence_transformers_gives_the_same_vectors_and_trains_on(
    workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    st = pytest.importorskip("sentence_transformers", reason="n2kit[export] is not installed", exc_type=ImportError)
    datasets = pytest.importorskip("datasets", reason="n2kit[export] is not installed")
    theirs, ours = given(workspace)
    wanted = encode(n2kit.load(tiny_bundle), ours, precision="fp32").vectors
    facts = export(tiny_bundle, "sentence-transformers", tmp_path / "out")
    assert facts["modalities"][:2] == ["text", "image"]
    assert json.loads((tmp_path / "out" / "config_sentence_transformers.json").read_text())["requirements"].keys() == {
        "n2kit"
    }
    with pytest.raises(ValueError, match="trust_remote_code"):
        st.SentenceTransformer(str(tmp_path / "out"))
    for model in (
        n2kit.as_sentence_transformer(tiny_bundle),
        st.SentenceTransformer(str(tmp_path / "out"), trust_remote_code=True),
    ):
        assert ((model.encode(theirs) * wanted).sum(1) >= 0.99999).all()
        assert model.encode("oak").shape == (16,)
        prompt, long = model[0].model.prompt_builder, Item("x", image="x.png", title="oak " * 500)
        longest = max(len(prompt(long, image=image).ids) for image in (False, True))
        assert longest <= model.max_seq_length < 2 * longest
        with pytest.raises(BadInput, match="prompt of its own"):
            model.encode(["oak"], prompt="query: ")
        with pytest.raises(BadInput, match="is a URL"):
            model.encode([{"title": "oak", "image": "https://example.org/a.png"}])
    rows = datasets.Dataset.from_dict({"anchor": list("abcd"), "positive": list("efgh")})
    arguments = st.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "run"), max_steps=1, per_device_train_batch_size=4, learning_rate=1e-2, report_to=[],
        save_strategy="no", use_cpu=True,
    )  # fmt: skip
    loss = st.sentence_transformer.losses.MultipleNegativesRankingLoss(model)
    st.SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=loss).train()
    changed = model.encode(theirs)
    assert np.abs(changed - wanted).max() > 1e-4
    model.save(str(tmp_path / "trained"))
    again = n2kit.load(tmp_path / "trained" / "0_N2kitModule" / "bundle")
    assert np.abs(encode(again, ours, precision="fp32").vectors - changed).max() < 1e-5


@pytest.mark.slow
def test_onnx_computes_what_the_model_does(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason="n2kit[export] is not installed")
    import onnxruntime
    import torch

    facts = export(tiny_bundle, "onnx", tmp_path / "onnx")
    assert all(difference < 1e-4 for difference in facts["largest_difference"].values())
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "vision.onnx"))
    model = n2kit.load(tiny_bundle)
    assert model.vision is not None
    pixels = torch.rand(5, *session.get_inputs()[0].shape[1:])
    with torch.no_grad():
        out = model.vision(pixels)
    tokens, pooled = session.run(None, {"pixels": pixels.numpy()})
    assert np.abs(tokens - out.tokens.numpy()).max() < 1e-4
    assert np.abs(pooled - out.pooled.numpy()).max() < 1e-4
    with pytest.raises(BadInput, match="exists"):
        export(tiny_bundle, "onnx", tmp_path / "onnx")
    assert export(tiny_bundle, "onnx", tmp_path / "onnx", force=True)


@pytest.mark.slow
def test_mteb_finds_what_eval_finds(workspace: Path, tiny_bundle: Path) -> None:
    mteb = pytest.importorskip("mteb", reason="n2kit[mteb] is not installed")
    import n2kit.mteb

    items, images = workspace / "items.jsonl", workspace / "images"
    model = n2kit.mteb.model(tiny_bundle)
    task = n2kit.mteb.task(items, workspace / "test.csv", images=images, pool=workspace / "pool.csv")
    done = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    scores = done.task_results[0].scores["test"][0]
    vectors = n2kit.embed(tiny_bundle, items, images=images)
    pool = (workspace / "pool.csv").read_text().split()[1:]
    wanted = n2kit.evaluate(vectors, workspace / "test.csv", ks=[1, 3, 10], pool=pool, protocol="standard", resamples=0)
    for k in (1, 3, 10):
        assert scores[f"recall_at_{k}"] == pytest.approx(wanted.figures[f"recall@{k}"].value, abs=1e-5)


@pytest.mark.slow
def test_mteb_s_own_mock_tasks_of_texts_and_images_all_run(tiny_bundle: Path) -> None:
    mteb = pytest.importorskip("mteb", reason="n2kit[mteb] is not installed")
    import n2kit.mteb

    results = mteb.mock_run(n2kit.mteb.model(tiny_bundle)).task_results
    failed = {name: str(result)[:300] for name, result in results.items() if type(result).__name__ == "TaskError"}
    assert failed == {}
    assert sum(result is not None for result in results.values()) >= 40


def test_without_their_libraries_exports_say_what_to_install(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    import n2kit.mteb

    known = importlib.util.find_spec
    gone = ("sentence_transformers", "onnxruntime", "mteb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in gone else known(name, *more))
    for kind in ("sentence-transformers", "onnx"):
        with pytest.raises(Unavailable, match="is not installed") as problem:
            export(tiny_bundle, kind, tmp_path / "x")
        assert problem.value.hint == "pip install 'n2kit[export]'"
    with pytest.raises(Unavailable, match="mteb"):
        n2kit.mteb.model(tiny_bundle)


def test_vectors_leave_with_their_ids(cli: Any, index: Path, tmp_path: Path) -> None:
    import faiss
    import pyarrow.parquet as pq

    stored = n2kit.Index.load(index).stored
    for source in (index, index.parent / "vectors.parquet"):
        target = tmp_path / source.name
        assert cli("export", str(source), f"{target}.faiss", "--to", "faiss").code == 0
        ids = json.loads(Path(f"{target}.faiss.ids.json").read_text())
        found = faiss.read_index(f"{target}.faiss")
        scores, rows = found.search(stored.index.vector(stored.position["noto:3"])[None], 2)
        assert ids[rows[0][0]] in ("noto:3", "twemoji:3")
        assert scores[0][0] == pytest.approx(1, abs=1e-5)
        assert cli("export", str(source), f"{target}.out", "--to", "parquet", "--json").code == 0
        table = pq.read_table(f"{target}.out")
        assert table.column("id").to_pylist() == stored.ids
        assert np.allclose(table.column("vector").to_pylist()[3], stored.index.vector(3))
    assert pq.read_schema(tmp_path / "index.out").names == ["id", "vector", "title", "image"]


@pytest.fixture(scope="module")
def with_columns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of items whose texts are hard to write, with a number that one lacks."""
    from n2kit.data.items import Item, Items
    from n2kit.embed.vectors_file import Vectors, write_table
    from n2kit.index import Titles, build_index
    from n2kit.index.facts import Facts

    folder, ids = tmp_path_factory.mktemp("points"), ["plain", 'it\'s "one"', "a\\b\tc\nd", "\\N", "中文"]
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    write_table(Vectors(ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), "f" * 16), folder / "v.parquet")
    price = np.array([1, np.nan, 2.5, 3, 4])
    facts = Facts(
        ids, {"price": price, "two words": np.array(["x", "", "\\.", "y", "z"], object), "id": np.array(ids, object)}
    )
    titles = Titles(Items([Item(i, title=f"thing {i}") for i in ids]))
    build_index(folder / "v.parquet", folder / "index", titles=titles, facts=facts)
    return folder / "index"


def test_qdrant_reads_the_points(cli: Any, with_columns: Path, tmp_path: Path) -> None:
    stored = n2kit.Index.load(with_columns).stored
    done = cli("export", str(with_columns), str(tmp_path / "points.jsonl"), "--to", "qdrant")
    assert done.code == 0, done.err
    points = [json.loads(line) for line in (tmp_path / "points.jsonl").read_text("utf8").splitlines()]
    assert [point["payload"]["id"] for point in points] == stored.ids
    assert points[0]["payload"] == {"id": "plain", "title": "thing plain", "price": 1.0, "two words": "x"}
    assert points[1]["payload"].keys() == {"id", "title"}
    assert np.array_equal(np.float32([point["vector"] for point in points]), stored.index.vectors(np.arange(5)))
    models = pytest.importorskip("qdrant_client.models", reason="qdrant-client is not installed")
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    params = models.VectorParams(size=4, distance=models.Distance.DOT)
    client.create_collection("items", vectors_config=params)
    client.upload_points("items", [models.PointStruct(**point) for point in points])
    wanted = models.Filter(must=[models.FieldCondition(key="price", range=models.Range(gt=2))])
    found = client.query_points("items", query=points[4]["vector"], query_filter=wanted, limit=9).points
    assert found[0].payload["id"] == "中文"
    assert found[0].score == pytest.approx(1, abs=1e-5)
    assert {hit.payload["id"] for hit in found} == set(stored.ids[2:])


def test_postgresql_reads_the_rows(cli: Any, with_columns: Path, tmp_path: Path) -> None:
    stored = n2kit.Index.load(with_columns).stored
    done = cli("export", str(with_columns), str(tmp_path / "shop.sql"), "--to", "pgvector", "--json")
    assert done.code == 0, done.err
    before, data, after = re.split(
        r"COPY \"shop\" FROM STDIN;\n|^\\\.\n", (tmp_path / "shop.sql").read_text("utf8"), flags=re.MULTILINE
    )
    assert before == (
        "BEGIN;\nCREATE EXTENSION IF NOT EXISTS vector;\n"
        'CREATE TABLE "shop" (id text PRIMARY KEY, vector vector(4) NOT NULL, "title" text, "price" double precision, "two words" text);\n'
    )
    assert after == 'CREATE INDEX ON "shop" USING hnsw (vector vector_ip_ops);\nCOMMIT;\n'
    escapes = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}  # as PostgreSQL reads its COPY format
    rows = [
        [
            None if cell == r"\N" else re.sub(r"\\(.)", lambda found: escapes[found[1]], cell)
            for cell in line.split("\t")
        ]
        for line in data.splitlines()
    ]
    assert [row[0] for row in rows] == stored.ids
    assert np.array_equal(np.float32([json.loads(row[1] or "") for row in rows]), stored.index.vectors(np.arange(5)))
    assert [row[3] for row in rows] == ["1.0", None, "2.5", "3.0", "4.0"]
    assert [row[4] for row in rows] == ["x", None, "\\.", "y", "z"]


def test_the_atlas_has_pictures_words_and_a_map(cli: Any, index: Path, workspace: Path, tmp_path: Path) -> None:
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    arguments = ["--items", str(workspace / "items.jsonl"), "--images", str(workspace / "images")]
    done = cli("export", str(index), str(tmp_path / "atlas.parquet"), "--to", "atlas", *arguments)
    assert done.code == 0, done.err
    row = pq.read_table(tmp_path / "atlas.parquet").to_pylist()[0]
    assert (row["id"], row["title"], row["category"]) == ("noto:1f600", "thing 0", "x")
    assert Image.open(io.BytesIO(row["image"]["bytes"])).format == "WEBP"
    assert {"x", "y", "vector"} <= row.keys()


def test_the_map_is_the_first_two_principal_components() -> None:
    points = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 1, 0.1, 0.1, 0.1]
    place = plane(points)
    assert place.var(0) == pytest.approx(np.linalg.svd(points - points.mean(0))[1][:2] ** 2 / 50, rel=1e-4)
    assert np.array_equal(plane(points), place)
    assert plane(np.ones((3, 1))).shape == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["SOURCE", "x", "--to", "pickle"], 2, "nothing is exported to 'pickle'"),
        (["SOURCE", "x", "--to", "fais"], 2, "did you mean faiss?"),
        (["nowhere", "x", "--to", "faiss"], 2, "no vectors at nowhere"),
        (["SOURCE", "taken", "--to", "faiss"], 2, "taken exists"),
        (["SOURCE", "folder", "--to", "parquet", "--force"], 2, "folder"),
    ],
)
def test_what_cannot_be_exported_is_said(
    cli: Any, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "folder").mkdir()
    done = cli("export", *[str(index) if a == "SOURCE" else a for a in arguments])
    assert (done.code, says in done.err) == (code, True), done.err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_that_is_no_export_is_never_replaced(tmp_path: Path) -> None:
    from n2kit.export.folders import exported

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(BadInput, match="did not make it"), exported(tmp_path / "mine", True, {}):
        pass
    with exported(tmp_path / "ours", False, {}) as staged:
        (staged / "a.bin").write_text("1")
    (tmp_path / "ours" / "note.txt").write_text("x")
    with pytest.raises(BadInput, match=r"holds 'note.txt'"), exported(tmp_path / "ours", True, {}):
        pass


DOCS = Path(__file__).parents[1] / "docs"


def test_the_page_s_commands_run(
    cli: Any, index: Path, workspace: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util
    import re
    import shlex

    from n2kit.export.kinds import KINDS

    monkeypatch.chdir(tmp_path)
    page = (DOCS / "export.md").read_text("utf8")
    stands = {
        "catalogue.index": index, "runs/fitted": tiny_bundle, "examples/notes/items.csv": workspace / "items.csv",
        "examples/notes/images": workspace / "images",
    }  # fmt: skip
    commands = [
        shlex.split(line)[1:] for block in re.findall(r"```bash\n(.*?)```", page, re.S) for line in block.splitlines()
    ]
    assert {command[command.index("--to") + 1] for command in commands} == KINDS.keys()
    for command in commands:
        kind = KINDS[command[command.index("--to") + 1]]
        if not kind.needs:
            done = cli(*(str(stands.get(word, word)) for word in command))
            assert done.code == 0, (command, done.err)
    assert importlib.util.find_spec("n2kit.mteb") is not None


@pytest.mark.parametrize("page", ["serving.md", "export.md"])
def test_every_command_and_flag_of_the_pages_is_there(cli: Any, page: str) -> None:
    import re

    text = re.sub(r"```dockerfile\n.*?```", "", (DOCS / page).read_text("utf8"), flags=re.S)
    said = (
        cli("serve", "--help").out
        + cli("recommend", "--help").out
        + cli("export", "--help").out
        + cli("hub", "push", "--help").out
    )
    said += cli("hub", "pull", "--help").out + cli("index", "--help").out + cli("train", "--help").out
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - OTHERS
    assert {flag for flag in flags if flag not in said} == set()


def test_the_page_shows_the_dockerfile_of_the_repository_which_copies_what_the_wheel_is_made_of() -> None:
    root = DOCS.parent
    assert f"```dockerfile\n{(root / 'Dockerfile').read_text('utf8')}```" in (DOCS / "serving.md").read_text("utf8")
    taken = {line[1:] for line in (root / ".dockerignore").read_text("utf8").splitlines() if line.startswith("!")}
    assert taken == {"cli", "core", "plugins", "pyproject.toml", "registry.yaml", "README.md", "LICENSE"}
    assert all((root / name).exists() for name in taken)


OTHERS = {  # of pip, docker and embedding-atlas; of n2kit build and eval
    "--no-cache-dir", "--index-url", "--build-arg", "--create-home", "--start-period", "--text", "--x", "--y", "--loss", "--protocol",
}  # fmt: skip
