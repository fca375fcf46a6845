"""Folders are known by what their manifests say: of another kind, with a foreign file, or damaged, each is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

import n2kit
from n2kit.bundle import io as bundle
from n2kit.embed.encode import Encoded
from n2kit.embed.vectors_file import write_vectors
from n2kit.errors import BadInput
from n2kit.index import build_index, load_index
from n2kit.utils.digests import file_digest
from sealing import older, reseal

ROWS, WIDTH = 6, 4


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    write_vectors(
        Encoded([f"item {n}" for n in range(ROWS)], drawn, None, {}), "0123456789abcdef", tmp_path / "v.parquet"
    )
    return tmp_path / "v.parquet"


@pytest.fixture
def index(vectors: Path, tmp_path: Path) -> Path:
    build_index(vectors, tmp_path / "index")
    return tmp_path / "index"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


# --- what --force may replace -----------------------------------------------------------------------------------------

WRITERS: dict[str, tuple[str, ...]] = {
    "build": ("build", "--llm", "qwen:tiny", "--variant", "text_only", "-o", "{out}"),
    "merge": ("merge", "{bundle}", "-o", "{out}"),
    "pack": ("pack", "{bundle}", "-o", "{out}"),
    "index": ("index", "{vectors}", "-o", "{out}"),
    "neglect": ("neglect", "{bundle}", "--items", "items.jsonl", "--pairs", "test.csv", "-o", "{out}"),
}


def web_app(out: Path) -> None:
    (out / "src").mkdir(parents=True)
    (out / "src/app.js").write_text("years of work")
    (out / "manifest.json").write_text('{"name": "My app", "icons": [], "start_url": "/"}')


def foreign_files(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")


def results_of_another_program(out: Path) -> None:
    out.mkdir()
    (out / "neglect.json").write_text('{"dogs": 3}')


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize(
    "what", [web_app, foreign_files, results_of_another_program, "bundle", "index", "file", "loop"]
)
@pytest.mark.parametrize("command", WRITERS)
def test_nothing_but_a_folder_of_its_own_kind_is_replaced(
    command: str,
    what: str | Callable[[Path], None],
    force: tuple[str, ...],
    cli: Any,
    tiny_bundle: Path,
    index: Path,
    vectors: Path,
    at_workspace: Path,
    tmp_path: Path,
) -> None:
    own = {"build": "bundle", "merge": "bundle", "pack": "bundle"}.get(command, command)
    out = tmp_path / "out"
    if callable(what):
        what(out)
    elif what == "bundle":
        shutil.copytree(tiny_bundle, out)
    elif what == "index":
        shutil.copytree(index, out)
    elif what == "file":
        out.write_text("years of work")
    else:
        out.symlink_to(out)
    if what == own:
        (out / "notes.txt").write_text("years of work")
    before = tree(tmp_path)
    refused = cli(
        *(w.format(out=out, bundle=tiny_bundle, vectors=vectors) for w in WRITERS[command]),
        *force,
    )
    assert refused.code == 2, refused.err
    assert "give another -o" in refused.err
    assert tree(tmp_path) == before


def test_force_replaces_a_folder_of_its_own_kind(
    cli: Any, index: Path, vectors: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    (index / ".DS_Store").write_bytes(b"by looking at it")
    assert cli("index", vectors, "-o", index).code == 2
    assert cli("index", vectors, "-o", index, "--force").code == 0
    shutil.copytree(tiny_bundle, tmp_path / "b")
    assert cli("pack", tiny_bundle, "-o", tmp_path / "b", "--force").code == 0


def test_folders_of_the_versions_before_may_be_replaced(
    index: Path, vectors: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    first_format(index)
    build_index(vectors, index, force=True)
    shutil.copytree(tiny_bundle, tmp_path / "b")
    older(tmp_path / "b", 1)
    model = bundle.load(tmp_path / "b")
    (tmp_path / "b/llm/notes").write_text("mine")
    with pytest.raises(BadInput, match="n2kit did not make it as a bundle"):
        bundle.save(model, tmp_path / "b", force=True)
    (tmp_path / "b/llm/notes").unlink()
    bundle.save(model, tmp_path / "b", force=True)


@pytest.mark.parametrize("leave", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to(p), Path.touch])
def test_what_has_the_names_of_our_temporary_files_is_no_bug(
    leave: Callable[[Path], Any], vectors: Path, tmp_path: Path, cli: Any
) -> None:
    (tmp_path / ".out-killed").mkdir()
    for name in (".out.lock", ".out-x", ".out-killed/.in-use", ".out-killed/.lock", f".out.{os.getpid()}.tmp"):
        leave(tmp_path / name)
    done = cli("index", vectors, "-o", tmp_path / "out")
    assert done.code in (0, 2)
    assert done.code == 0 or str(tmp_path) in done.err


@pytest.mark.parametrize("kind", ["loop", "pipe"])
@pytest.mark.parametrize(
    "command",
    [
        ("embed", "{x}", "--items", "items.jsonl", "-o", "o.parquet"),
        ("embed", "{bundle}", "--items", "{x}", "-o", "o.parquet"),
        ("embed", "{bundle}", "--items", "items.jsonl", "--images", "{x}", "-o", "o.parquet"),
        ("embed", "{bundle}", "--items", "items.jsonl", "--images", "images", "-o", "{x}", "--force"),
        ("embed", "{bundle}", "--items", "items.jsonl", "--images", "images", "-o", "{x}/v.parquet"),
        ("build", "--llm", "qwen@file:{x}", "--variant", "text_only", "-o", "o"),
        ("index", "{x}", "-o", "o"),
        ("index", "{vectors}", "-o", "{x}/o"),
        ("recommend", "--index", "{x}", "--id", "a"),
        ("eval", "--vectors", "{vectors}", "--pairs", "{x}"),
        ("eval", "--vectors", "{vectors}", "--pairs", "test.csv", "--per-query", "{x}", "--force"),
        ("mine-negatives", "--vectors", "{vectors}", "--pairs", "test.csv", "-o", "{x}", "--force"),
        ("train", "{bundle}", "--items", "items.jsonl", "--images", "images", "--pairs", "train.csv", "-o", "{x}/run"),
        ("demo", "-o", "{x}"),
        ("plugins", "new", "grid", "--kind", "vision", "-o", "{x}"),
    ],
)
def test_links_to_themselves_and_pipes_are_bad_input(
    command: tuple[str, ...], kind: str, vectors: Path, tiny_bundle: Path, at_workspace: Path, tmp_path: Path, cli: Any
) -> None:
    strange = tmp_path / "strange"
    strange.symlink_to(strange) if kind == "loop" else os.mkfifo(strange)
    refused = cli(*(word.format(x=strange, bundle=tiny_bundle, vectors=vectors) for word in command))
    assert refused.code == 2
    assert "error: " in refused.err


# --- indexes ----------------------------------------------------------------------------------------------------------


def first_format(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest = {k: v for k, v in manifest.items() if k not in ("files", "dtype")} | {"format": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def seal(folder: Path) -> None:
    """Write the hashes of the files as they are now: what a stranger could make."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: file_digest(folder / name) for name in manifest["files"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rewrite(make: Callable[[np.ndarray], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = str(folder / "flat.faiss")
        faiss.write_index(make(faiss.read_index(file).reconstruct_n(0, ROWS)), file)

    return spoil


def filled(made: Any, vectors: np.ndarray) -> Any:
    made.add(np.ascontiguousarray(vectors))
    return made


def ids(change: Callable[[list[str]], Any]) -> Callable[[Path], None]:
    return lambda f: (f / "ids.json").write_text(json.dumps(change(json.loads((f / "ids.json").read_text())))) and None


def flip(folder: Path) -> None:
    content = bytearray((folder / "flat.faiss").read_bytes())
    content[-1] ^= 0x40
    (folder / "flat.faiss").write_bytes(content)


def pipe(folder: Path) -> None:
    (folder / "ids.json").unlink()
    os.mkfifo(folder / "ids.json")


SPOILT: dict[str, tuple[Callable[[Path], None], bool]] = {  # and whether new hashes would hide it
    "another width": (rewrite(lambda v: filled(faiss.IndexFlatIP(2), v[:, :2])), False),
    "more vectors": (rewrite(lambda v: filled(faiss.IndexFlatIP(WIDTH), np.concatenate([v, v]))), False),
    "fewer vectors": (rewrite(lambda v: filled(faiss.IndexFlatIP(WIDTH), v[:-1])), False),
    "L2": (rewrite(lambda v: filled(faiss.IndexFlatL2(WIDTH), v)), False),
    "HNSW": (rewrite(lambda v: filled(faiss.IndexHNSWFlat(WIDTH, 4), v)), False),
    "NaN": (rewrite(lambda v: filled(faiss.IndexFlatIP(WIDTH), v * np.nan)), False),
    "long vectors": (rewrite(lambda v: filled(faiss.IndexFlatIP(WIDTH), v * 3)), False),
    "a flipped byte": (flip, False),
    "shuffled ids": (ids(lambda i: i[::-1]), True),
    "fewer ids": (ids(lambda i: i[:-1]), False),
    "ids that are numbers": (ids(lambda i: list(range(len(i)))), False),
    "an id twice": (ids(lambda i: [i[0], *i[:-1]]), False),
    "no ids": (lambda f: (f / "ids.json").unlink(), False),
    "ids that are no JSON": (lambda f: (f / "ids.json").write_bytes(b"\xff[") and None, False),
    "nested too deep": (lambda f: (f / "ids.json").write_text("[" * 100_000) and None, False),
    "a file more": (lambda f: (f / "more").write_text("") and None, True),
    "a pipe": (pipe, True),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_damaged_index_is_refused_in_a_line(what: str, index: Path, cli: Any) -> None:
    spoil, hidden = SPOILT[what]
    spoil(index)
    refused = cli("recommend", "--index", index, "--id", "item 0")
    assert refused.code == 2
    assert "is damaged" in refused.err
    assert "index again" in refused.err
    if not hidden and (index / "ids.json").exists():
        seal(index)
        refused = cli("recommend", "--index", index, "--id", "item 0")
        assert refused.code == 2
        assert "index again" in refused.err


@pytest.mark.parametrize(
    "change",
    [{"width": "4"}, {"items": 0}, {"metric": "L2"}, {"dtype": "int8"}, {"files": []}, {"files": {"ids.json": "0"}}, {"more": 1}, {"component": None}],
)  # fmt: skip
def test_a_manifest_of_an_index_is_read_strictly(change: dict[str, Any], index: Path) -> None:
    content = json.loads((index / "manifest.json").read_text())
    (index / "manifest.json").write_text(json.dumps(content | change))
    with pytest.raises(BadInput, match="is damaged"):
        load_index(index)


def test_an_index_of_the_version_before_is_to_be_made_again(index: Path, cli: Any) -> None:
    first_format(index)
    refused = cli("recommend", "--index", index, "--id", "item 0")
    assert refused.code == 2
    assert "format 1, which has no hashes" in refused.err
    assert "index again" in refused.err


def test_manifests_that_are_pipes_do_not_hang(index: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    for file in (index / "manifest.json", tmp_path / "b/recipe.yaml", tmp_path / "b/llm/config.json"):
        file.unlink()
        os.mkfifo(file)
    with pytest.raises(BadInput, match="no manifest.json"):
        load_index(index)
    with pytest.raises(BadInput, match="no regular file"):
        bundle.load(tmp_path / "b")
    shutil.copy(tiny_bundle / "recipe.yaml", tmp_path / "r")
    (tmp_path / "r").replace(tmp_path / "b/recipe.yaml")
    with pytest.raises(BadInput, match="llm/config.json is no regular file"):
        bundle.load(tmp_path / "b")


def test_an_index_that_a_full_disk_cut_is_not_left(
    vectors: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from n2kit_faiss import flat

    def full(*_: Any) -> None:
        raise RuntimeError("Error: 'ret == 1' failed: write error: 0 != 1 (No space left on device)")

    monkeypatch.setattr(flat.faiss, "write_index", full)
    done = cli("index", vectors, "-o", tmp_path / "i")
    assert done.code == 3
    assert "No space left on device" in done.err
    assert [f.name for f in tmp_path.iterdir()] == [vectors.name]


# --- bundles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2])
def test_a_bundle_of_a_version_before_is_read(number: int, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    older(tmp_path / "b", number)
    if number == 1:
        (tmp_path / "b/README.md").unlink()
    assert bundle.load(tmp_path / "b").width == 16
    assert bundle.read_manifest(tmp_path / "b").fingerprint != bundle.read_manifest(tiny_bundle).fingerprint


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_part_that_the_manifest_no_longer_names_is_missed(number: int, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    if number < 3:
        older(tmp_path / "b", number)
    content = json.loads((tmp_path / "b/manifest.json").read_text())
    del content["parts"]["vision"]
    (tmp_path / "b/manifest.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="does not say what its vision is"):
        bundle.load(tmp_path / "b")


def test_the_fingerprint_covers_what_reads_a_part(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    content = json.loads((tmp_path / "b/manifest.json").read_text())
    content["parts"]["fusion"]["component"] = "sum"
    (tmp_path / "b/manifest.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="and its manifest says"):
        bundle.load(tmp_path / "b")


JUNK: list[Any] = [None, 7, [1], {"a": {"b": []}}]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["llm/config.json", "llm/tokenizer.json", "llm/tokenizer_config.json", "llm/n2kit.json", "vision/config.json", "vision/n2kit_transform.json", "connector/config.json", "prompt.json"])  # fmt: skip
def test_json_of_a_wrong_type_in_a_part_is_damage(file: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """With the hashes of a manifest to match, as a stranger could make it: the library that reads the file fails in its own way."""
    shutil.copytree(tiny_bundle, tmp_path / "b")
    if not (tmp_path / "b" / file).is_file():
        file = next(str(f.relative_to(tmp_path / "b")) for f in sorted((tmp_path / "b" / file).parent.glob("*.json")))
    whole = json.loads((tmp_path / "b" / file).read_text())
    for junk in [*JUNK, *({**whole, key: value} for key in whole for value in (None, {"a": 1}))]:
        (tmp_path / "b" / file).write_text(json.dumps(junk))
        reseal(tmp_path / "b")
        try:
            model = bundle.load(tmp_path / "b")
        except BadInput:
            continue
        assert model.width == 16  # a key that decides nothing


def test_errors_of_the_models_own_are_no_damage(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(bundle, "Model", no_memory)
    with pytest.raises(MemoryError):
        n2kit.load(tiny_bundle)


def test_names_are_shown_as_they_are_in_the_readme(tiny_bundle: Path) -> None:
    from markdown_it import MarkdownIt

    from n2kit.bundle.readme import readme

    strange = "a|b_c_ *d* [x](y) <script> `e`\n# f & &lt;"
    manifest, recipe = bundle.read_manifest(tiny_bundle), bundle.read_recipe(tiny_bundle)
    parts = {
        k: facts | {"reference": strange, "licence": strange, "weights": strange} for k, facts in manifest.parts.items()
    }
    text = readme(manifest.model_copy(update={"parts": parts}), recipe, dict.fromkeys(parts, 1)).split("---\n", 2)[2]
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    shown = "a|b_c_ *d* [x](y) &lt;script&gt; `e` # f &amp; &amp;lt;"
    assert rendered.count(f"<td>{shown}</td>") == 3 * len(parts)
    assert "<h1>" + " + ".join([shown] * 4) + "</h1>" in rendered
