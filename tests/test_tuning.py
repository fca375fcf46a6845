"""Tuning of parts: each way trains exactly its weights, frozen stays bit-equal, adapters are saved, merged and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import n2kit
from n2kit import Item, read_items, read_pairs
from n2kit.bundle import io as bundle
from n2kit.contract.interfaces import LoadSpec, Part
from n2kit.errors import BadInput, Failed, Mismatch
from n2kit.modeling import lora
from n2kit.modeling.layer_depth import layer_depths, parameters_after_blocks, probe_outputs
from n2kit.modeling.model import Model
from n2kit.modeling.trainable import apply
from n2kit.planning.memory import estimate
from n2kit.planning.plan import Plan
from n2kit.planning.planner import make_plan
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.schema import settings
from n2kit.recipe.settings import Recipe, resolve
from n2kit.recipe.tuning import Tune, lr_flags, tune_flags
from n2kit.testing.references import references
from n2kit.train import RunResult, engine, train
from n2kit.train.checks import frozen_fingerprint, trained_state
from n2kit.train.param_groups import param_groups
from sealing import reseal

FAST = {"train.precision": "fp32", "train.batch_size": 4, "train.warmup": 0, "train.lr": 1e-2, "train.log_steps": 1}
ITEMS = [Item("1", title="red shoe"), Item("2", title="a much longer title of another thing", content="and more")]


def build(llm: str = "qwen:tiny", vision: str | None = "siglip:tiny", **given: Any) -> Model:
    joint = {} if vision is None else {"connector": "mlp:4"}
    variant = {"variant": "text_only"} if vision is None else {}
    return n2kit.build(llm, vision, settings={"head.width": 16, **joint, **variant, **given})


def backbone(kind: str, reference: str) -> Any:
    component = default_catalogue().resolve(kind, reference)  # type: ignore[arg-type]
    return component.cls().create(LoadSpec(component.config(), component.weights.locate())).eval()


def fitted(model: Model, workspace: Path, folder: Path, **given: Any) -> engine.TrainingResult:
    items = read_items(workspace / "items.jsonl")
    recipe = resolve({**FAST, "train.max_steps": 2, **given}, env={}).recipe
    pairs = read_pairs(workspace / "train.csv", items)
    return engine.train_model(model, items, pairs, recipe.train, folder, images=workspace / "images", device="cpu")


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    after = module.state_dict()
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def trained(part: Part) -> set[str]:
    return {name for name, parameter in part.named_parameters() if parameter.requires_grad}


# --- what a user writes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tune"),
    [
        ("frozen", Tune("frozen")),
        ("full", Tune("full")),
        ("last:2", Tune("last", 2)),
        ("lora:8", Tune("lora", 8, 16)),
        ("lora:8:8", Tune("lora", 8, 8)),
        ("qlora:8", Tune("qlora", 8, 16)),
    ],
)
def test_ways_to_tune(text: str, tune: Tune) -> None:
    assert Tune.parse(text) == tune
    assert str(tune) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("some", "is no way to tune a part: frozen, last:K, lora:R, qlora:R .the LLM. or full"),
        ("last", "last:2 tunes the last two blocks"),
        ("last:0", "last:2 tunes the last two blocks"),
        ("last:2:3", "last:2 tunes the last two blocks"),
        ("lora", "lora:16 has rank 16"),
        ("lora:x", "lora:16 has rank 16"),
        ("lora:-4", "lora:16 has rank 16"),
        ("full:3", "full takes no number"),
        ("qlora", "qlora:16 has rank 16"),
    ],
)
def test_what_is_no_way_to_tune(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Tune.parse(text)


def test_flags_become_settings() -> None:
    assert tune_flags(" llm=lora:16, vision=frozen,connector=full") == {
        "llm.tune": "lora:16", "vision.tune": "frozen", "connector.tune": "full",
    }  # fmt: skip
    assert tune_flags(None) == lr_flags(None) == {}
    assert lr_flags("1e-4") == {"train.lr": 1e-4, "train.new_lr": 1e-4, "train.lrs": {}}
    assert lr_flags("llm=1e-5,connector=1e-4") == {"train.lrs.llm": 1e-5, "train.lrs.connector": 1e-4}
    recipe = resolve(lr_flags("2e-4,head=1e-3"), env={"N2KIT_TRAIN__LRS__LLM": "1e-5"}).recipe
    assert recipe.train.lrs == {"head": 1e-3}  # a rate for everything is for everything
    assert resolve({}, env={"N2KIT_TRAIN__LRS__LLM": "1e-5"}).recipe.train.lrs == {"llm": 1e-5}


def test_every_wrong_value_is_named() -> None:
    with pytest.raises(BadInput, match=r"'full' is not PART=VALUE; no part 'fusion' of llm, vision, connector"):
        tune_flags("full,fusion=frozen")
    with pytest.raises(BadInput, match=r"no part 'gate' of .*; 'high' is no number"):
        lr_flags("llm=high,gate=1")
    with pytest.raises(BadInput) as caught:
        resolve({"llm.tune": "lora", "vision.tune": "qlora:4", "connector.tune": "last:1", "train.lrs.llm": -1}, env={})
    for key in (
        "llm.tune: 'lora'",
        "vision: tune 'qlora:4' packs a language model alone",
        "connector.tune",
        "train.lrs.llm",
        "4 settings are wrong",
    ):
        assert key in caught.value.message


# --- what a plan knows ------------------------------------------------------------------------------------------------


def plan(**flags: Any) -> Plan:
    resolved = resolve({"llm": "qwen:tiny", "vision": "clip:tiny", **flags}, env={})
    return make_plan(resolved.recipe, requested=resolved.origin)


def test_more_blocks_than_there_are_are_refused() -> None:
    (refusal,) = plan(**{"llm.tune": "last:3"}).refusals
    assert refusal.message == "llm.tune last:3 asks for 3 blocks, and llm qwen:tiny has 2"
    assert refusal.hint == "--tune llm=last:2 or fewer, or llm=full"
    assert plan(**{"llm.tune": "last:2"}).refusals == []


def test_a_vision_encoder_that_names_no_blocks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for registered in default_catalogue().plugins.components("vision"):
        if registered.spec.name == "clip":
            monkeypatch.setitem(vars(registered.spec), "capabilities", frozenset())
    for tune in ("last:1", "lora:2"):
        (refusal,) = plan(**{"vision.tune": tune}).refusals
        assert refusal.message == f"vision.tune {tune} works on blocks, and vision clip:tiny names none of its own"
        assert refusal.hint == "--tune vision=full or vision=frozen"
    (refusal,) = plan(**{"vision.tune": "full", "train.layer_decay": 0.5}).refusals
    assert "train.layer_decay 0.5 works on blocks" in refusal.message
    assert plan(**{"train.layer_decay": 0.5}).refusals == []  # frozen: nothing to decay


def test_the_plan_counts_what_is_trained() -> None:
    rows = {tune: {r.part: r for r in plan(**{"llm.tune": tune}).rows}["llm"] for tune in ("frozen", "full")}
    assert (rows["frozen"].trainable, rows["full"].trainable) == (0, rows["full"].parameters)
    for tune in ("last:1", "lora:4"):
        made = plan(**{"llm.tune": tune})
        (said,) = (r.trainable for r in made.rows if r.part == "llm")
        part = backbone("llm", "qwen:tiny")
        apply(part, "llm", Tune.parse(tune), 0)
        assert said == pytest.approx(sum(p.numel() for p in part.parameters() if p.requires_grad), rel=0.02)
        assert any("is an estimate here" in note for note in made.notes)
        assert estimate(made).gradients < estimate(plan()).gradients
    large = plan(llm="qwen:0.6b", **{"llm.tune": "lora:16"})
    assert [r.trainable for r in large.rows if r.part == "llm"] == [pytest.approx(28 * 16 * 22528, rel=0.01)]
    frozen = plan(**{"connector.tune": "frozen"})
    assert [r.trainable for r in frozen.rows if r.part == "connector"] == [0]
    assert any("connector.tune frozen keeps it there" in note for note in frozen.notes)
    notes = plan(variant="text_only", **{"vision.tune": "lora:2"}).notes
    assert "variant text_only has no vision: vision.tune lora:2 is left out" in notes


# --- what is trained --------------------------------------------------------------------------------------------------

QWEN_LAST = ("model.layers.1.", "model.norm.")
SIGLIP_LAST = ("model.encoder.layers.1.", "model.post_layernorm.", "model.head.")
WAYS: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = [
    ("full", "frozen", ("",), ()),
    ("frozen", "full", (), ("",)),
    ("last:1", "last:1", QWEN_LAST, SIGLIP_LAST),
    ("lora:2", "lora:3", ("lora",), ("lora",)),
    ("frozen", "frozen", (), ()),
]


def belongs(name: str, prefixes: tuple[str, ...]) -> bool:
    return ".lora_" in name if prefixes == ("lora",) else name.startswith(prefixes)


@pytest.mark.parametrize(("llm", "vision", "llm_weights", "vision_weights"), WAYS, ids=lambda x: str(x))
def test_each_way_trains_exactly_its_weights(
    llm: str, vision: str, llm_weights: tuple[str, ...], vision_weights: tuple[str, ...],
    workspace: Path, tmp_path: Path,
) -> None:  # fmt: skip
    model = build(**{"llm.tune": llm, "vision.tune": vision})
    before = copied(model)
    result = fitted(model, workspace, tmp_path)
    after = changed(before, model)
    for kind, prefixes in (("llm", llm_weights), ("vision", vision_weights)):
        part = getattr(model, kind)
        assert trained(part) == {n for n, _ in part.named_parameters() if belongs(n, prefixes)}
        assert {n for n in after if n.startswith(f"{kind}.")} <= {f"{kind}.{n}" for n in trained(part)}
        got = {n for n in trained(part) if f"{kind}.{n}" in after}
        unused = {n for n in trained(part) - got if "embed_tokens" not in n}
        assert not unused, f"{kind}: {sorted(unused)}"
        assert all(p.grad is None for p in part.parameters() if not p.requires_grad)
    assert after <= set(trained_state(model))
    assert {n.partition(".")[0] for n in after} >= {"connector", "fusion", "head", "loss"}
    assert bool(result.frozen) == ((llm, vision) != ("full", "full"))
    assert result.frozen == frozen_fingerprint(model)


def test_a_connector_can_be_frozen(workspace: Path, tmp_path: Path) -> None:
    model = n2kit.build(
        mllm="llava:tiny", settings={"head.width": 16, "connector.tune": "frozen", "vision.tune": "lora:2"}
    )
    before = copied(model)
    fitted(model, workspace, tmp_path)
    after = {n.partition(".")[0] for n in changed(before, model)}
    assert "connector" not in after
    assert {"vision", "llm", "fusion"} <= after
    assert all(".lora_" in n for n in changed(before, model) if n.startswith("vision."))


def test_statistics_of_the_blocks_that_rest_do_not_drift() -> None:
    """BatchNorm in the frozen stages of an EfficientNet, under `.train()`; that of the last stage learns."""
    part = backbone("vision", "timm:tiny")
    apply(part, "vision", Tune.parse("last:1"), 0)
    before, last = copied(part), len(part.blocks()) - 1
    part.train()(torch.rand(4, 3, 128, 128))
    moved = {n for n in changed(before, part) if "running" in n}
    assert moved
    assert all(n.startswith((f"model.blocks.{last}.", "model.conv_head", "model.bn2")) for n in moved), moved
    assert {n for n in trained_state(nn.ModuleDict({"x": part})) if "running" in n} == {f"x.{n}" for n in moved}


@pytest.mark.parametrize("kind", ["llm", "vision"])
def test_adapters_of_every_family_get_a_gradient_and_change_nothing_at_first(kind: str) -> None:
    """Every in-tree backbone at its smallest. Those without linear layers in their blocks are refused."""
    adapted = 0
    for reference in references(kind, "n2kit"):  # type: ignore[arg-type]
        part = backbone(kind, reference)
        if kind == "vision" and not any(isinstance(m, nn.Linear) for b in part.blocks() for m in b.modules()):
            with pytest.raises(Mismatch, match="adapts linear layers, and no block of the vision runs one"):
                apply(part, kind, Tune.parse("lora:2"), 0)
            continue
        with torch.no_grad():
            want = probe_outputs(part)
            apply(part, kind, Tune.parse("lora:2"), 0)
            got = probe_outputs(part.eval())
        assert all((a - b).abs().max() < 1e-6 for a, b in zip(want, got, strict=True)), reference
        outputs = probe_outputs(part.train())
        sum(t.float().sin().sum() for t in outputs).backward()  # type: ignore[union-attr]
        idle, count = lora.untrained_adapters(part)
        assert not idle, (reference, idle)
        assert count
        assert all(".lora_" in n for n in trained(part))
        adapted += 1
    assert adapted >= 20


def test_layers_whose_weights_are_read_directly_get_no_adapter() -> None:
    """torch's attention, Mamba's time step, EVA's fused projection: an adapter there would never run."""
    for kind, reference, left in (
        ("vision", "open_clip:tiny", "out_proj"), ("llm", "mamba:tiny", "dt_proj"), ("vision", "timm:tiny-eva", "qkv"),
    ):  # fmt: skip
        part = backbone(kind, reference)
        names = lora.linear_layers(part)
        assert names
        assert not [n for n in names if n.endswith(left)]
        assert any(n.endswith(left) for n, m in part.named_modules() if isinstance(m, nn.Linear))


def test_what_lies_behind_the_blocks() -> None:
    for kind, reference, want in (
        ("llm", "qwen:tiny", {"model.norm.weight"}),
        ("llm", "opt:tiny", {"model.decoder.final_layer_norm.weight", "model.decoder.final_layer_norm.bias", "model.decoder.project_out.weight"}),
        ("vision", "clip:tiny", set()),
        ("vision", "llava-vision:tiny", set()),  # reads the states of a layer, which transformers keeps by a hook of its own
        ("vision", "open_clip:tiny", {"visual.proj", "visual.ln_post.weight", "visual.ln_post.bias"}),
    ):  # fmt: skip
        part = backbone(kind, reference)
        behind = {id(p) for p in parameters_after_blocks(part)}
        assert {n for n, p in part.named_parameters() if id(p) in behind} == want, reference


# --- learning rates ---------------------------------------------------------------------------------------------------


def rates(model: Model, **given: Any) -> dict[str, float]:
    recipe = resolve(given, env={}).recipe
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in param_groups(model, recipe.train) for p in g["params"]}


def test_learning_rates_arrive_in_the_optimiser() -> None:
    model = build(**{"vision.tune": "last:1"})
    found = rates(
        model, **{"train.lr": 1e-5, "train.new_lr": 1e-3, "train.lrs": {"vision": 2e-5, "head": 5e-4, "words": 3e-4}}
    )
    of = {
        part: {lr for n, lr in found.items() if n.startswith(f"{part}.")}
        for part in ("llm", "vision", "connector", "head", "special_tokens")
    }
    assert of == {"llm": {1e-5}, "vision": {2e-5}, "connector": {1e-3}, "head": {5e-4}, "special_tokens": {3e-4}}
    assert set(found) == {n for n, p in model.named_parameters() if p.requires_grad}
    decay = {
        id(p): g["weight_decay"] for g in param_groups(model, resolve({}, env={}).recipe.train) for p in g["params"]
    }
    assert all(decay[id(p)] == (0.001 if p.ndim > 1 else 0) for p in model.parameters() if p.requires_grad)


def test_layer_decay() -> None:
    """ELECTRA's depth: the final norm 0, the last block 1, the first 2, the table of words 3."""
    model = build()
    found = rates(model, **{"train.lr": 1e-3, "train.layer_decay": 0.5})
    assert found["llm.model.norm.weight"] == 1e-3
    assert found["llm.model.layers.1.mlp.up_proj.weight"] == 5e-4
    assert found["llm.model.layers.0.mlp.up_proj.weight"] == 2.5e-4
    assert found["llm.model.embed_tokens.weight"] == 1.25e-4
    assert {lr for n, lr in found.items() if n.startswith("fusion.")} == {1e-4}
    adapted = build(vision=None, **{"llm.tune": "lora:2"})
    found = rates(adapted, **{"train.lrs": {"llm": 1e-3}, "train.layer_decay": 0.5})
    assert {lr for n, lr in found.items() if "layers.0" in n} == {2.5e-4}
    assert set(layer_depths(adapted.llm).values()) == {0, 1, 2, 3}


def test_layer_decay_without_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(vision=None)
    monkeypatch.setattr(type(model.llm), "blocks", lambda self: [])
    with pytest.raises(Mismatch, match=r"train.layer_decay works on blocks, and the llm names none of its own"):
        rates(model, **{"train.layer_decay": 0.5})
    for tune in ("last:1", "lora:1"):
        with pytest.raises(Mismatch, match=f"llm.tune {tune} works on blocks"):
            apply(backbone("llm", "qwen:tiny"), "llm", Tune.parse(tune), 0)


def test_more_blocks_than_a_vision_encoder_has() -> None:
    with pytest.raises(Mismatch, match=r"vision.tune last:3 asks for 3 blocks, and the vision has 2"):
        build(**{"vision.tune": "last:3"})


# --- adapters in bundles ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained bundle with an adapter on both of its backbones; the LLM's linear layers are GPT-2's."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("adapted")
    model = build("gpt2:tiny", **{"llm.tune": "lora:4", "vision.tune": "lora:2:8", "prompt.template": "compact"})
    fitted(model, workspace, folder / "fit")
    bundle.save(model, folder / "bundle")
    return folder / "bundle"


def vectors(model: Model, workspace: Path) -> Any:
    items = read_items(workspace / "items.jsonl").items[:6]
    return model.encode(items, images=workspace / "images", precision="fp32")


def test_a_bundle_with_adapters_holds_the_base_and_loads_bit_equal(
    adapted: Path, workspace: Path, tmp_path: Path
) -> None:
    base = build("gpt2:tiny", **{"prompt.template": "compact"})
    base.save(tmp_path / "base")
    for kind in ("llm", "vision"):
        assert (adapted / kind / "model.safetensors").read_bytes() == (
            tmp_path / "base" / kind / "model.safetensors"
        ).read_bytes()
        config = json.loads((adapted / kind / "adapter" / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"]) == {"llm": (4, 8), "vision": (2, 8)}[kind]
    assert not [f for f in adapted.rglob("*") if f.suffix in (".bin", ".pt", ".pkl")]
    one, two = bundle.load(adapted), bundle.load(adapted)
    assert (vectors(one, workspace) == vectors(two, workspace)).all()
    assert abs(vectors(one, workspace) - vectors(bundle.load(tmp_path / "base"), workspace)).max() > 1e-3
    assert lora.lora_config_of(one.llm) == Tune("lora", 4, 8)
    bundle.save(one, tmp_path / "again")
    for file in adapted.rglob("adapter/*"):
        assert (tmp_path / "again" / file.relative_to(adapted)).read_bytes() == file.read_bytes()


def test_vectors_of_the_trained_model_are_those_of_the_loaded_one(workspace: Path, tmp_path: Path) -> None:
    model = build(**{"llm.tune": "lora:4"})
    fitted(model, workspace, tmp_path / "fit")
    bundle.save(model, tmp_path / "bundle")
    assert (vectors(model, workspace) == vectors(n2kit.load(tmp_path / "bundle"), workspace)).all()


def test_an_adapter_on_narrow_weights_is_trained_wide(workspace: Path, tmp_path: Path) -> None:
    """bfloat16 weights stay as they are, bit by bit; the adapter is float32, in memory, in the bundle and out of it again."""
    build(vision=None, **{"prompt.template": "compact"}).save(tmp_path / "base")
    wide = bundle.load(tmp_path / "base")
    wide.llm.bfloat16()
    bundle.save(wide, tmp_path / "narrow")
    recipe = resolve({"llm.tune": "lora:4"}, base=bundle.read_recipe(tmp_path / "narrow"), env={}).recipe
    model = bundle.load(tmp_path / "narrow", recipe=recipe)
    before = copied(model.llm)
    fitted(model, workspace, tmp_path / "fit", **{"train.precision": "bf16", "train.grad_cache": 4})
    bundle.save(model, tmp_path / "bundle")
    loaded = bundle.load(tmp_path / "bundle")
    for each in (model.llm, loaded.llm):
        dtypes = {n: p.dtype for n, p in each.named_parameters()}
        assert {d for n, d in dtypes.items() if ".lora_" in n} == {torch.float32}
        assert {d for n, d in dtypes.items() if ".lora_" not in n} == {torch.bfloat16}
        assert {n.rpartition(".lora_")[1] for n in changed(before, each)} == {".lora_"}
    assert not changed(copied(model.llm), loaded.llm)
    bundle.merge(tmp_path / "bundle", tmp_path / "merged")
    text = [i | {"image": ""} for i in ({"title": "red shoe"}, {"title": "blue hat"})]
    one, two = (bundle.load(tmp_path / name).encode(text, precision="fp32") for name in ("bundle", "merged"))
    assert abs(one - two).max() < 1e-5


def test_peft_reads_the_adapter_by_itself(adapted: Path) -> None:
    from peft import PeftModel

    model = bundle.load(adapted)
    part = type(model.llm).load(adapted / "llm")
    wrapped = PeftModel.from_pretrained(part, str(adapted / "llm" / "adapter")).eval()
    with torch.no_grad():
        assert torch.equal(probe_outputs(model.llm)[0], probe_outputs(wrapped.base_model.model)[0])


def test_merged_vectors_are_the_same_and_no_adapter_is_left(
    cli: Any, adapted: Path, workspace: Path, tmp_path: Path
) -> None:
    done = cli("merge", adapted, "-o", tmp_path / "merged", "--json")
    assert done.code == 0
    facts = json.loads(done.out)
    manifest = bundle.read_manifest(tmp_path / "merged")
    assert facts["fingerprint"] == manifest.fingerprint
    assert (
        facts["merged"]
        == manifest.trained["merged"]
        == bundle.read_manifest(adapted).fingerprint
        != manifest.fingerprint
    )
    merged = bundle.load(tmp_path / "merged")
    assert abs(vectors(merged, workspace) - vectors(bundle.load(adapted), workspace)).max() < 1e-5
    assert not list((tmp_path / "merged").rglob("adapter"))
    assert not [n for n, _ in merged.named_parameters() if "lora" in n]
    assert (merged.recipe.llm.tune, merged.recipe.vision.tune) == ("frozen", "frozen")
    again = cli("merge", tmp_path / "merged", "-o", tmp_path / "twice")
    assert again.code == 2
    assert "holds no adapter" in again.err
    assert cli("merge", adapted, "-o", tmp_path / "merged").code == 2  # it is there already


def spoil(folder: Path, what: str) -> None:
    file = folder / "llm" / "adapter" / "adapter_model.safetensors"
    if what == "missing":
        shutil.rmtree(file.parent)
    elif what == "no config":
        (file.parent / "adapter_config.json").unlink()
    elif what == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    else:
        state = load_file(file)
        first = sorted(state)[0]
        state[first] = state[first][:1].clone() if what == "another shape" else state[first] + 1
        if what == "left out":
            del state[first]
        save_file(state, file)


@pytest.mark.parametrize("what", ["missing", "no config", "cut", "another shape", "left out", "changed"])
def test_a_damaged_adapter_is_refused(what: str, cli: Any, adapted: Path, workspace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(adapted, folder)
    spoil(folder, what)
    done = cli("merge", folder, "-o", tmp_path / "out")
    assert done.code == 2
    assert "is damaged: llm/adapter/adapter_" in done.err
    if what == "changed":
        return
    reseal(folder)  # even with a manifest to match
    with pytest.raises(BadInput, match="is damaged"):
        bundle.load(folder)


def test_a_held_adapter_is_trained_on_frozen_or_merged_first(adapted: Path) -> None:
    own = bundle.read_recipe(adapted)

    def tuned(llm: str) -> Recipe:
        return resolve({"llm.tune": llm}, base=own, env={}).recipe

    assert trained(bundle.load(adapted, recipe=tuned("lora:4")).llm)
    frozen = bundle.load(adapted, recipe=tuned("frozen")).llm
    assert lora.lora_config_of(frozen)
    assert not trained(frozen)
    for other in ("full", "last:1", "lora:8"):
        with pytest.raises(
            Mismatch, match=f"the llm holds an adapter of lora:4, and llm.tune {other} was asked for"
        ) as caught:
            bundle.load(adapted, recipe=tuned(other))
        assert "n2kit merge" in (caught.value.hint or "")


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> Any:
    items = read_items(workspace / "items.jsonl")

    def call(folder: str, **given: Any) -> RunResult:
        recipe = resolve(
            {**FAST, "train.lr": 1e-3, "train.save_steps": 2, **given}, base=bundle.read_recipe(tiny_bundle), env={}
        ).recipe
        pairs = read_pairs(workspace / "train.csv", items)
        return train(
            tiny_bundle, items, pairs, recipe, tmp_path / folder, images=workspace / "images", report=call.events.append
        )  # type: ignore[attr-defined]

    call.events = []  # type: ignore[attr-defined]
    return call


def weights(result: RunResult) -> dict[str, Tensor]:
    root = Path(result.bundle)
    return {
        f"{f.relative_to(root)}:{k}": v for f in sorted(root.rglob("*.safetensors")) for k, v in load_file(f).items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("tune", [{"llm.tune": "lora:4"}, {"llm.tune": "last:1", "vision.tune": "lora:2"}], ids=str)
def test_stopped_and_resumed_equals_unbroken(tune: dict[str, str], run: Any, tmp_path: Path) -> None:
    """sentence-transformers #3701: an adapter must go on where it was, not start anew."""
    whole = run("whole", **{"train.max_steps": 6}, **tune)
    real = run.events.append

    class Stop(list[Any]):
        def append(self, event: Any) -> None:
            real(event)
            if event["event"] == "step" and event["step"] == 3:
                os.kill(os.getpid(), signal.SIGINT)

    run.events = Stop()
    stopped = run("broken", **{"train.max_steps": 6}, **tune)
    assert stopped.interrupted
    run.events = []
    resumed = run("broken", **{"train.max_steps": 6}, **tune)
    assert (resumed.resumed_from, resumed.steps) == (stopped.steps, 6)
    one, two = weights(whole), weights(resumed)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert whole.fingerprint == resumed.fingerprint
    assert whole.frozen == resumed.frozen != ""
    saved = load_file(next((tmp_path / "whole" / "checkpoints").glob("checkpoint-*")) / "model.safetensors")
    assert not [k for k in saved if "base_layer" in k or "embed_tokens" in k]
    if tune["llm.tune"] == "lora:4":
        assert all(".lora_" in k for k in saved if k.startswith("model.llm."))


def test_frozen_weights_that_change_are_an_error(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    real = engine.TrainStep.forward

    def spoiling(self: Any, *args: Any, **facts: Any) -> Any:
        with torch.no_grad():
            next(self.model.vision.parameters()).add_(1)
        return real(self, *args, **facts)

    monkeypatch.setattr(engine.TrainStep, "forward", spoiling)
    with pytest.raises(Failed, match=r"frozen weights changed in training: \w{16} before, \w{16} after"):
        fitted(model, workspace, tmp_path)


def test_an_adapter_without_a_gradient_is_named(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "called_modules", lambda part, modules: list(modules))
    model = build(vision="open_clip:tiny", **{"vision.tune": "lora:2"})
    with pytest.raises(
        Failed,
        match=r"2 of 6 adapters of the vision got no gradient: visual\.transformer\.resblocks\.0\.attn\.out_proj",
    ):
        fitted(model, workspace, tmp_path)


def test_adapters_that_no_picture_reaches_are_an_error(workspace: Path, tmp_path: Path) -> None:
    model = build(**{"vision.tune": "lora:2"})
    items = read_items(workspace / "items.jsonl")
    for item in items.items:
        object.__setattr__(item, "image", "")
    recipe = resolve({**FAST, "train.max_steps": 2}, env={}).recipe
    with pytest.raises(Failed, match="in 2 steps, no adapter of the vision got a gradient"):
        engine.train_model(
            model, items, read_pairs(workspace / "train.csv", items), recipe.train, tmp_path, device="cpu"
        )


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_flags_reach_the_bundle_and_the_run(cli: Any, at_workspace: Path, tmp_path: Path) -> None:
    built = cli(
        "build", "--llm", "qwen:tiny", "--vision", "siglip:tiny", "--connector", "mlp:4", "--tune", "llm=lora:4",
        "--lr", "llm=1e-3", "-o", tmp_path / "m", "--json",
    )  # fmt: skip
    assert built.code == 0, built.err
    recipe = bundle.read_recipe(tmp_path / "m")
    assert (recipe.llm.tune, recipe.train.lrs) == ("lora:4", {"llm": 1e-3})
    made = json.loads(built.out)
    (row,) = (r for r in made["parts"] if r["part"] == "llm")
    assert row["trainable"] == pytest.approx(4096, rel=0.02)
    assert made["trainable"] == sum(p.numel() for p in bundle.load(tmp_path / "m").parameters() if p.requires_grad)
    common = (
        "train",
        tmp_path / "m",
        "--items",
        "items.jsonl",
        "--pairs",
        "train.csv",
        "--images",
        "images",
        "--max-steps",
        "1",
        "-o",
    )
    done = cli(*common, tmp_path / "r", "--tune", "llm=lora:4,connector=frozen", "--lr", "1e-4", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert len(result["frozen"]) == 16
    recipe = bundle.read_recipe(Path(result["bundle"]))
    assert (recipe.connector.tune, recipe.train.lr, recipe.train.lrs) == ("frozen", 1e-4, {})
    said = cli(*common, tmp_path / "r2")
    assert "frozen weights" in said.err
    for wrong, reason in (
        ("llm=qlora:8", "holds an adapter of lora:4, and llm.tune qlora:8 was asked for"),
        ("vision=qlora:4", "packs a language model alone"),
        ("vision=last:9", "vision.tune last:9 asks for 9 blocks, and the vision has 2"),
        ("llm=last:9", "llm.tune last:9 asks for 9 blocks, and llm qwen:tiny has 2"),
        ("llm=full", "holds an adapter of lora:4"),
    ):
        refused = cli(*common, tmp_path / "r3", "--tune", wrong)
        assert refused.code == 2, wrong
        assert reason in refused.err


def test_the_schema_lists_every_setting_with_its_meaning(cli: Any) -> None:
    shown = cli("config", "schema")
    assert shown.out.startswith("| setting | type | default | meaning |")
    every = {s.key: s for s in settings()}
    assert all(s.meaning and s.type for s in every.values())

    def leaves(node: dict[str, Any], prefix: str = "") -> set[str]:
        return {
            k
            for n, v in node.items()
            for k in (leaves(v, f"{prefix}{n}.") if isinstance(v, dict) and v else {f"{prefix}{n}"})
        }

    there = leaves(Recipe().model_dump()) - {"mllm"} | {"mllm.name"}
    assert there == {k for k in every if not k.endswith(".*")}
    assert every["train.lr"].default == 3e-6
    assert every["llm.tune"].default == "full"
    assert every["train.precision"].type == "auto | fp32 | bf16"
    assert every["prompt.topics"].type == "integer ≥ 0 or null"
    schema = json.loads(cli("config", "schema", "--json").out)
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["properties"]) == set(Recipe.model_fields)
    said = json.loads(cli("config", "show", "--json", "--set", "train.lrs.llm=1e-5").out)
    assert said["train.lrs"] == {"value": {"llm": 1e-5}, "origin": "flag"}
