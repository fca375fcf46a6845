"""Bundles: parts by reference, the loader's strictness, and saving that loses nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import n2kit
from n2kit import read_items, read_pairs
from n2kit.bundle import io as bundle
from n2kit.bundle.readme import readme
from n2kit.errors import BadInput, Failed, Unavailable
from n2kit.recipe.settings import resolve
from n2kit.train import train
from n2kit.utils import digests
from n2kit.utils.digests import file_digest
from n2kit.utils.folders import atomic_dir
from sealing import older, reseal

SETTINGS = {"head.width": 16, "prompt.template": "compact", "train.max_steps": 2, "train.batch_size": 4}
Made = Callable[..., n2kit.Model]


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llm/ and vision/: checkpoints as they lie about on a disk, in bfloat16 and in float32."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("weights")
    model = n2kit.build("qwen:tiny", "siglip:tiny")
    for kind in ("llm", "vision"):
        (root / kind).mkdir()
    model.llm.bfloat16().save(root / "llm")
    assert model.vision is not None
    model.vision.save(root / "vision")
    return root


@pytest.fixture
def make(backbones: Path, tmp_path: Path) -> Made:
    """A model of weights in files; of copies of them that a test may spoil, with `own`."""

    def build(own: bool = False, **settings: Any) -> n2kit.Model:
        root = tmp_path / "weights" if own else backbones
        if own and not root.exists():
            shutil.copytree(backbones, root)
        llm, vision = f"qwen@file:{root / 'llm'}", f"siglip@file:{root / 'vision'}"
        return n2kit.build(llm, vision, connector="mlp:tiny", settings={**SETTINGS, **settings})

    return build


def vectors(folder: Path, workspace: Path) -> np.ndarray:
    items = read_items(workspace / "items.jsonl").items[:4]
    return bundle.load(folder).encode(items, images=workspace / "images", precision="fp32")


def size(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def trained(source: Path, folder: Path, workspace: Path, **settings: Any) -> Path:
    items = read_items(workspace / "items.jsonl")
    recipe = resolve(settings, base=bundle.read_recipe(source), env={}).recipe
    pairs = read_pairs(workspace / "train.csv", items)
    return Path(train(source, items, pairs, recipe, folder, images=workspace / "images").bundle)


# --- by reference -----------------------------------------------------------------------------------------------------


def test_a_reference_is_the_same_model_as_a_copy(make: Made, workspace: Path, tmp_path: Path) -> None:
    model = make()
    copy = bundle.save(model, tmp_path / "copy")
    reference = bundle.save(model, tmp_path / "reference", by_reference=True)
    assert reference.fingerprint == copy.fingerprint
    assert sorted(reference.sources) == ["llm", "vision"]
    assert {f.parent.name for f in (tmp_path / "reference").rglob("*.safetensors")} == {
        "reference",
        "connector",
        "fusion",
        "loss",
    }
    assert size(tmp_path / "reference") < size(tmp_path / "copy") / 2
    assert (vectors(tmp_path / "reference", workspace) == vectors(tmp_path / "copy", workspace)).all()


def test_random_weights_are_copied(tmp_path: Path) -> None:
    model = n2kit.build("qwen:tiny", "siglip:tiny", settings=SETTINGS)
    assert not bundle.save(model, tmp_path / "b", by_reference=True).sources


def test_weights_that_could_not_be_known_again_are_copied(
    make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2kit.bundle.references.weight_files", lambda place: {})
    assert not bundle.save(make(), tmp_path / "b", by_reference=True).sources


@pytest.mark.parametrize("tune", ["frozen", "lora:2"])
def test_training_keeps_references_and_gives_the_model_that_a_copy_gives(
    tune: str, make: Made, workspace: Path, tmp_path: Path
) -> None:
    model = make(**{"llm.tune": tune})
    for name, by_reference in (("copy", False), ("reference", True)):
        bundle.save(model, tmp_path / name, by_reference=by_reference)
        trained(tmp_path / name, tmp_path / f"{name}-run", workspace)
    copy, reference = (bundle.read_manifest(tmp_path / f"{name}-run/bundle") for name in ("copy", "reference"))
    assert sorted(reference.sources) == ["llm", "vision"]
    assert not copy.sources
    assert reference.fingerprint == copy.fingerprint
    assert (tmp_path / "reference-run/bundle/llm/adapter").is_dir() == (tune != "frozen")


def test_what_was_trained_is_copied(make: Made, workspace: Path, tmp_path: Path) -> None:
    bundle.save(make(**{"llm.tune": "last:1"}), tmp_path / "b", by_reference=True)
    done = trained(tmp_path / "b", tmp_path / "run", workspace, **{"train.lr": 1e-3})
    assert sorted(bundle.read_manifest(done).sources) == ["vision"]
    assert (vectors(done, workspace) != vectors(tmp_path / "b", workspace)).any()


def test_by_hand_changed_weights_are_never_taken_for_their_source(make: Made, tmp_path: Path) -> None:
    model = make()
    next(model.llm.parameters()).data[0, 0] += 1
    assert sorted(bundle.save(model, tmp_path / "b", by_reference=True).sources) == ["vision"]
    again = bundle.load(tmp_path / "b")
    assert torch.equal(next(again.llm.parameters()), next(model.llm.parameters()))


def test_a_bundle_finds_weights_that_moved_with_it_or_where_it_is_told(
    make: Made, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.save(make(own=True), tmp_path / "b", by_reference=True)
    want = vectors(tmp_path / "b", workspace)
    (tmp_path / "elsewhere").mkdir()
    for name in ("b", "weights"):
        shutil.move(tmp_path / name, tmp_path / "elsewhere" / name)
    folder = tmp_path / "elsewhere" / "b"
    assert (vectors(folder, workspace) == want).all()
    shutil.move(folder.parent / "weights", tmp_path / "moved alone")
    with pytest.raises(Unavailable, match=r"the llm of .* is file:.*weights/llm by reference: no weights at") as caught:
        bundle.load(folder)
    assert "N2KIT_WEIGHTS=llm=file:FOLDER" in str(caught.value.hint)
    places = ",".join(f"{kind}=file:{tmp_path / 'moved alone' / kind}" for kind in ("llm", "vision"))
    monkeypatch.setenv("N2KIT_WEIGHTS", places)
    assert (vectors(folder, workspace) == want).all()
    bundle.save(bundle.load(folder), tmp_path / "again")
    monkeypatch.delenv("N2KIT_WEIGHTS")
    assert (vectors(tmp_path / "again", workspace) == want).all()


def test_a_wrong_place_is_refused(make: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.save(make(), tmp_path / "b", by_reference=True)
    for wrong, complaint in (
        ("llm", "is not PART=SOURCE"),
        ("lllm=file:x", "is not PART=SOURCE"),
        ("llm=x", "is no weight source"),
        ("llm=random", "random weights are no source"),
    ):
        monkeypatch.setenv("N2KIT_WEIGHTS", wrong)
        with pytest.raises(BadInput, match=complaint):
            bundle.load(tmp_path / "b")


def test_a_hub_that_cannot_be_reached_is_the_environments(cli: Any, make: Made, tmp_path: Path) -> None:
    bundle.save(make(), tmp_path / "b", by_reference=True)
    sources = json.loads((tmp_path / "b/manifest.json").read_text())["sources"]
    sources["llm"] |= {"weights": "hf:nobody/nothing@0123456789abcdef0123456789abcdef01234567", "near": None}
    reseal(tmp_path / "b", sources=sources)
    done = cli("pack", tmp_path / "b", "-o", tmp_path / "out")
    assert done.code == 3
    assert "hf:nobody/nothing@0123456789abcdef0123456789abcdef01234567 are not cached and the hub" in done.err
    assert "N2KIT_WEIGHTS=llm=file:FOLDER" in done.err


@pytest.mark.parametrize("change", ["changed", "gone", "another config"])
def test_a_source_that_has_changed_is_refused_with_both_hashes(
    change: str, cli: Any, make: Made, tmp_path: Path
) -> None:
    manifest = bundle.save(make(own=True), tmp_path / "b", by_reference=True)
    file = tmp_path / "weights/vision" / ("config.json" if change == "another config" else "model.safetensors")
    was = manifest.sources["vision"].files[file.name][:16]
    if change == "gone":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-1] = content[-1] ^ 1
        file.write_bytes(content)
    done = cli("pack", tmp_path / "b", "-o", tmp_path / "out")
    assert done.code == 2
    assert f"which has changed: {file.name} was {was} (sha256) and is not there any more" in done.err or (
        f"{file.name} was {was} (sha256) and is {file_digest(file)[:16]} now" in done.err
    )
    assert not (tmp_path / "out").exists()


def test_pack_makes_a_copy_that_stands_alone(cli: Any, make: Made, workspace: Path, tmp_path: Path) -> None:
    made = bundle.save(make(own=True, **{"llm.tune": "lora:2"}), tmp_path / "b", by_reference=True)
    want = vectors(tmp_path / "b", workspace)
    done = cli("pack", tmp_path / "b", "-o", tmp_path / "out", "--json")
    assert json.loads(done.out) == {
        "bundle": str(tmp_path / "out"),
        "fingerprint": made.fingerprint,
        "copied": ["llm", "vision"],
    }
    shutil.rmtree(tmp_path / "weights")
    assert (vectors(tmp_path / "out", workspace) == want).all()
    assert cli("pack", tmp_path / "b", "-o", tmp_path / "out").code == 2


def test_sources_may_go_while_a_model_is_trained(make: Made, tmp_path: Path) -> None:
    bundle.save(make(own=True), tmp_path / "b", by_reference=True)
    model = bundle.load(tmp_path / "b")
    shutil.move(tmp_path / "weights", tmp_path / "away")
    bundle.save(model, tmp_path / "c")
    shutil.move(tmp_path / "away", tmp_path / "weights")
    assert bundle.load(tmp_path / "c")


def test_merging_copies_only_what_it_changes(make: Made, workspace: Path, tmp_path: Path) -> None:
    bundle.save(make(**{"llm.tune": "lora:2"}), tmp_path / "b", by_reference=True)
    done = trained(tmp_path / "b", tmp_path / "run", workspace, **{"train.lrs": {"llm": 1e-2}})
    merged = bundle.merge(done, tmp_path / "merged")
    assert sorted(merged.sources) == ["vision"]
    np.testing.assert_allclose(vectors(tmp_path / "merged", workspace), vectors(done, workspace), atol=1e-5)


def test_a_multimodal_llm_is_referred_to_as_a_whole(workspace: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForImageTextToText

    from n2kit_hf.tiny import byte_tokenizer
    from n2kit_mllm.tiny import LLAVA

    facts = dict(LLAVA)
    config = AutoConfig.for_model(facts.pop("model_type"), **facts)
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "llava")
    byte_tokenizer(config).save_pretrained(tmp_path / "llava")
    model = n2kit.build(mllm=f"llava@file:{tmp_path / 'llava'}", settings=SETTINGS)
    copy = bundle.save(model, tmp_path / "copy")
    reference = bundle.save(model, tmp_path / "b", by_reference=True)
    assert sorted(reference.sources) == ["connector", "llm", "vision"]
    assert reference.fingerprint == copy.fingerprint
    assert (vectors(tmp_path / "b", workspace) == vectors(tmp_path / "copy", workspace)).all()
    done = trained(tmp_path / "b", tmp_path / "run", workspace, **{"llm.tune": "frozen"})
    assert sorted(bundle.read_manifest(done).sources) == ["llm", "vision"]


def test_the_first_format_is_read(tiny_bundle: Path, workspace: Path, tmp_path: Path) -> None:
    """Its manifest has no list of files, and its fingerprint does not cover the parts."""
    shutil.copytree(tiny_bundle, tmp_path / "old")
    (tmp_path / "old/README.md").unlink()
    older(tmp_path / "old", 1)
    manifest = json.loads((tmp_path / "old/manifest.json").read_text())
    assert (vectors(tmp_path / "old", workspace) == vectors(tiny_bundle, workspace)).all()
    (tmp_path / "old/joint.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match=f"and its manifest says {manifest['fingerprint']}"):
        bundle.load(tmp_path / "old")


def test_large_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "LARGE", 10)
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    file = tmp_path / "weights"
    file.write_bytes(b"a" * 20)
    first = file_digest(file)
    with monkeypatch.context() as patch:
        patch.setattr(digests, "_read", lambda file: pytest.fail("read again"))
        assert file_digest(file) == first
    times = file.stat()
    file.write_bytes(b"b" * 20)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # set back; the inode's own time shows it
    assert file_digest(file) != first


# --- strict loading ---------------------------------------------------------------------------------------------------


def truncate(folder: Path) -> None:
    file = folder / "llm/model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def leave_out_a_tensor(folder: Path) -> None:
    file = folder / "connector/model.safetensors"
    state = load_file(file)
    del state[sorted(state)[0]]
    save_file(state, file)


def add_a_tensor(folder: Path) -> None:
    file = folder / "llm/model.safetensors"
    save_file(load_file(file) | {"extra": torch.ones(2)}, file, metadata={"format": "pt"})


def reshape(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        state = load_file(folder / name)
        first = sorted(state)[0]
        save_file(state | {first: state[first].flatten()[:1].clone()}, folder / name, metadata={"format": "pt"})

    return spoil


def put_nan(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        state = load_file(folder / name)
        state[sorted(state)[0]].flatten()[-1] = float("nan")
        save_file(state, folder / name, metadata={"format": "pt"})

    return spoil


def test_what_hubs_and_desktops_leave_is_no_damage(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    (tmp_path / "b" / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    assert bundle.load(tmp_path / "b").width == 16


@pytest.mark.parametrize(
    "command",
    [
        ("embed", "{b}", "--items", "items.jsonl", "--images", "images", "-o", "{b}/v.parquet"),
        ("train", "{b}", "--items", "items.jsonl", "--images", "images", "--pairs", "train.csv", "-o", "{b}/run"),
        ("pack", "{b}", "-o", "{b}/packed"),
        ("build", "--llm", "qwen:tiny", "--variant", "text_only", "-o", "{b}/llm/more"),
    ],
)
def test_nothing_is_written_into_a_bundle(
    command: tuple[str, ...], tiny_bundle: Path, at_workspace: Path, tmp_path: Path, cli: Any
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    before = sorted(tmp_path.rglob("*"))
    refused = cli(*(word.format(b=tmp_path / "b") for word in command))
    assert refused.code == 2
    assert f"lies inside the bundle {tmp_path / 'b'}" in refused.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bundle_that_is_read_and_written_again_is_the_same_model(tiny_bundle: Path, tmp_path: Path) -> None:
    again = bundle.save(bundle.load(tiny_bundle), tmp_path / "again")
    assert again.fingerprint == bundle.read_manifest(tiny_bundle).fingerprint


SPOILED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "cut": (truncate, "llm/model.safetensors has changed", "is damaged|not a checkpoint|cut short by 100 bytes"),
    "a file missing": (
        lambda f: (f / "fusion/model.safetensors").unlink(),
        "fusion/model.safetensors is missing",
        "is damaged",
    ),
    "a file more": (
        lambda f: (f / "llm/more.safetensors").write_bytes(b""),
        "llm/more.safetensors is none of its files",
        "",
    ),
    "a tensor missing": (leave_out_a_tensor, "connector/model.safetensors has changed", "is damaged"),
    "a tensor more": (
        add_a_tensor,
        "llm/model.safetensors has changed",
        "has 1 weight that its model has not, the first is extra",
    ),
    "shape in the llm": (reshape("llm/model.safetensors"), "has changed", "in the weights, and .* by config.json"),
    "shape in vision": (reshape("vision/model.safetensors"), "has changed", "in the weights, and .* by config.json"),
    "shape in the joint": (reshape("joint.safetensors"), "has changed", "joint.safetensors does not fit"),
    "nan in the llm": (put_nan("llm/model.safetensors"), "has changed", r"llm\..* is not finite"),
    "nan in the joint": (put_nan("joint.safetensors"), "has changed", "is not finite"),
    "words": (
        lambda f: (f / "prompt.json").write_text("[]"),
        "prompt.json has changed",
        "prompt.json: not a JSON object",
    ),
}


@pytest.mark.parametrize("what", SPOILED)
def test_what_is_damaged_is_said_in_a_line(what: str, tiny_bundle: Path, tmp_path: Path) -> None:
    """First with the manifest of the whole bundle; then with one to match, as a stranger could make it."""
    spoil, said, resealed = SPOILED[what]
    shutil.copytree(tiny_bundle, tmp_path / "b")
    spoil(tmp_path / "b")
    with pytest.raises(BadInput, match=said) as caught:
        bundle.load(tmp_path / "b")
    assert "\n" not in caught.value.message
    if resealed:
        reseal(tmp_path / "b")
        with pytest.raises(BadInput, match=resealed) as caught:
            bundle.load(tmp_path / "b")
        assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"files": {"../../etc/passwd": "0" * 64}}, "'../../etc/passwd' lies outside the bundle"),
        ({"files": {"/etc/passwd": "0" * 64}}, "'/etc/passwd' lies outside the bundle"),
        ({"files": {"llm/config.json": "0"}}, "should match pattern"),
        ({"parts": {"../x": {}}}, "should match pattern"),
        ({"parts": {}}, "is damaged"),
        ({"parts": {"llm": {}, "loss": {}}}, "is damaged"),
        ({"width": "wide"}, "width: Input should be a valid integer"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"sources": {"llm": {"weights": "file:/x"}}}, "sources.llm.options: Field required"),
        ({"format": 4}, "is a bundle of format 4; this n2kit reads 3"),
    ],
)
def test_manifests_that_no_one_of_ours_wrote(
    changes: dict[str, Any], said: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    content = json.loads((tmp_path / "b/manifest.json").read_text()) | changes
    (tmp_path / "b/manifest.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=re.escape(said)) as caught:
        bundle.load(tmp_path / "b")
    assert "\n" not in caught.value.message


# --- saving that loses nothing ----------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_bundle(
    cli: Any, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "b")
    before = {f: f.read_bytes() for f in (tmp_path / "b").rglob("*") if f.is_file()}

    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(bundle, "save_file", full)
    done = cli("build", "--llm", "qwen:tiny", "--variant", "text_only", "-o", tmp_path / "b", "--force")
    assert done.code == 3
    assert "No space left on device" in done.err
    assert {f: f.read_bytes() for f in (tmp_path / "b").rglob("*") if f.is_file()} == before
    assert [f.name for f in tmp_path.iterdir()] == ["b"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = n2kit.build("qwen:tiny", "siglip:tiny", settings=SETTINGS)
    model.special_tokens.table.weight.data[0, 0] = float("inf")
    with pytest.raises(Failed, match=r"special_tokens.table.weight is not finite"):
        bundle.save(model, tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleared_away_and_what_another_is_at_is_not(tmp_path: Path) -> None:
    target = tmp_path / "b"
    script = (
        "import sys, time; from pathlib import Path; from n2kit.utils.folders import atomic_dir\n"
        "with atomic_dir(Path(sys.argv[1])) as staged:\n"
        "    (staged / 'half').write_text('x'); print('ready', flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        (busy,) = tmp_path.iterdir()
        with atomic_dir(target) as staged:
            (staged / "whole").write_text("1")
        assert (busy / "new/half").exists()
    finally:
        process.kill()
        process.wait()
    assert sorted(f.name for f in tmp_path.iterdir()) == [busy.name, "b"]
    with atomic_dir(target) as staged:
        (staged / "whole").write_text("2")
    assert [f.name for f in tmp_path.iterdir()] == ["b"]
    assert (target / "whole").read_text() == "2"


def test_what_a_library_writes_for_its_owner_alone_is_as_readable_as_the_rest(tmp_path: Path) -> None:
    with atomic_dir(tmp_path / "b") as staged:
        (staged / "usual").write_text("1")
        (staged / "part").mkdir()
        (staged / "part" / "private").touch(0o600)
    assert (tmp_path / "b/part/private").stat().st_mode == (tmp_path / "b/usual").stat().st_mode


def test_killed_between_the_two_renames(tmp_path: Path) -> None:
    """The old one lies aside, and nothing in its place: the next one puts it back, before it does anything else."""
    left = tmp_path / ".b-killed"
    (left / "old").mkdir(parents=True)
    (left / "old/manifest.json").write_text("{}")
    (left / ".in-use").write_text("b")
    with pytest.raises(OSError), atomic_dir(tmp_path / "b"):
        raise OSError("full")
    assert [f.name for f in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b/manifest.json").exists()


# --- the readme -------------------------------------------------------------------------------------------------------


def test_a_trained_bundle_says_what_it_is(make: Made, workspace: Path, tmp_path: Path) -> None:
    bundle.save(make(**{"llm.tune": "lora:2"}), tmp_path / "b", by_reference=True)
    assert "It has not been trained" in (tmp_path / "b/README.md").read_text()
    folder = trained(tmp_path / "b", tmp_path / "run", workspace)
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "n2kit"
    manifest = bundle.read_manifest(folder)
    for fact in (
        manifest.fingerprint,
        "8 pairs of 24 items",
        "| lora:2 | by reference |",
        "| steps | 2 |",
        manifest.trained["run"]["pairs"],
    ):
        assert fact in text
    assert "trained without validation pairs" in text
    code = (
        re.findall(r"```python\n(.*?)```", text, re.S)[0]
        .replace("BUNDLE", str(folder))
        .replace("chair.png", "noto_1.png")
    )
    found: dict[str, Any] = {}
    exec(code.replace('"images"', repr(str(workspace / "images"))), found)
    assert found["vectors"].shape == (1, 16)
    (folder / "README.md").write_text("my own words")  # decides nothing
    bundle.load(folder)


def test_hubs_and_licences_in_the_front_matter(tmp_path: Path) -> None:
    manifest = bundle.save(n2kit.build("qwen:tiny", "siglip:tiny", settings=SETTINGS), tmp_path / "b")
    recipe = bundle.read_recipe(tmp_path / "b")
    parts = {k: dict(v) for k, v in manifest.parts.items()}
    parts["llm"] |= {"weights": "hf:org/a|b@main", "licence": "llama3.2"}
    parts["vision"] |= {"weights": "hf:org/c", "licence": None}
    text = readme(manifest.model_copy(update={"parts": parts}), recipe, dict.fromkeys(parts, 1))
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == ["org/a|b", "org/c"]
    assert front["license"] == "llama3.2"
    assert "org/a\\|b" in text
    assert "The licence of the vision (hf:org/c) is not known" in text
