"""The plan's rules: each refusal names both sides, the numbers and a fix that works."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from n2kit.errors import Unavailable
from n2kit.planning.advice import fit_memory, saved, smaller, tuned
from n2kit.planning.memory import GB, batch_that_fits, estimate, loaded_bytes
from n2kit.planning.plan import Plan
from n2kit.planning.planner import make_plan, parse_id, with_settings
from n2kit.planning.rules import embeds
from n2kit.planning.suggest import suggest
from n2kit.plugins.weights import WeightsUri
from n2kit.recipe.settings import parse_sets, resolve
from n2kit.recipe.tuning import tune_flags


def plan(llm: str = "qwen:tiny", vision: str = "clip:tiny", *sets: str, **flags: Any) -> Plan:
    resolved = resolve({"llm": llm, "vision": vision, **flags, **parse_sets(sets)}, env={})
    return make_plan(resolved.recipe, requested=resolved.origin)


def reasons(made: Plan) -> list[tuple[str, str | None]]:
    return [(r.message, r.hint) for r in made.refusals]


REFUSED: list[tuple[dict[str, Any], list[str], str, str, dict[str, Any]]] = [
    ({"llm": "bert:tiny"}, [], "needs a causal LLM, and llm bert:tiny reads both ways", "late_early_fusion", {"variant": "late_early_fusion"}),
    ({"llm": "bert:tiny", "variant": "micl"}, [], "variant micl needs a causal LLM", "--variant basic", {"variant": "basic"}),
    ({"vision": "qwen2.5-vl-vision:tiny", "vision.pool": None}, [], "fusion gate reads a pooled image vector, and vision qwen2.5-vl-vision:tiny gives", "--fusion cross-attention", {"fusion": "cross-attention"}),
    ({"vision": "qwen2.5-vl-vision:tiny", "vision.pool": None}, [], "tokens and none", "--set vision.pool=mean", {"vision.pool": "mean"}),
    ({"connector": "pixel-shuffle:3"}, [], "4", "scale", {"connector": "pixel-shuffle:2"}),
    ({"connector": "identity", "llm": "opt:tiny"}, [], "32 wide, and the language model reads 16", "", {"connector": "linear"}),
    ({"connector": "mlp:40"}, [], "average to 40 tokens, and the vision encoder gives 16", "connector.tokens=16", {"connector": "mlp:16"}),
    ({"llm": "gpt2:tiny", "connector": "qformer"}, ["prompt.body_tokens=600"], "a row may take 640 tokens (16 of them an image), and llm gpt2:tiny reads 512", "prompt.body_tokens=472", {"prompt.body_tokens": 472}),
    ({"llm": "mamba:tiny"}, ["llm.attention=sdpa"], "attention sdpa was asked for, and llm mamba:tiny has no attention to choose", "leave llm.attention out", {"llm.attention": None}),
    ({"fusion": "gate", "variant": "micl"}, [], "variant micl has no late fusion, and fusion gate was asked for", "--variant notellm2", {"variant": "notellm2"}),
    ({"fusion": "none", "variant": "late_early_fusion"}, [], "is late fusion, and fusion none was asked for", "--variant basic", {"variant": "basic"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "sets", "reason", "fix", "fixed"), REFUSED, ids=lambda x: x if isinstance(x, str) else ""
)
def test_refusals_name_both_sides_and_a_fix_that_works(
    flags: dict[str, Any], sets: list[str], reason: str, fix: str, fixed: dict[str, Any]
) -> None:
    found = reasons(plan(*[], **{"llm": "qwen:tiny", "vision": "clip:tiny", **flags, **parse_sets(sets)}))
    assert any(reason in message and fix in (hint or "") for message, hint in found), found
    changed = {"llm": "qwen:tiny", "vision": "clip:tiny", **flags, **parse_sets(sets), **fixed}
    assert reasons(plan(**changed)) == []


def test_llms_that_read_ids_alone() -> None:
    made = plan()
    made.llm = replace(made.llm, embeds=False)
    (refusal,) = embeds(made)
    assert "llm qwen:tiny reads token ids alone" in refusal.message
    assert refusal.hint


def test_licences() -> None:
    made = plan("qwen:2.5-3b", "siglip", licences=["apache-2.0"])
    (refusal,) = made.refusals
    assert refusal.message == "llm qwen:2.5-3b is under licence qwen-research, and licences allows apache-2.0"
    assert plan("qwen:2.5-3b", "siglip", licences=["apache-2.0", "qwen-research"]).refusals == []
    assert plan(licences=[]).refusals == []  # random weights have none


def test_memory_counts_weights_gradients_optimiser_activations() -> None:
    small = estimate(plan("qwen:4b", "siglip", **{"llm.tune": "frozen"}))
    full = estimate(plan("qwen:4b", "siglip"))
    made = plan("qwen:4b", "siglip")
    frozen, trained = made.rows[0].parameters, made.parameters - made.rows[0].parameters
    assert full.weights == 6 * trained + 4 * frozen  # float32 and autocast's copy; the encoder as it is published
    assert small.weights == full.weights - 4 * made.rows[2].parameters  # 16 bits as published
    assert full.gradients > small.gradients
    assert full.optimiser == 2 * full.gradients
    twice = estimate(plan("qwen:4b", "siglip", **{"train.batch_size": 32}))
    assert twice.activations == 2 * full.activations
    wide = estimate(plan("qwen:4b", "siglip", **{"train.precision": "fp32"}))
    assert wide.activations > full.activations
    tuned = estimate(plan("qwen:4b", "siglip", **{"vision.tune": "full"}))
    assert tuned.activations > full.activations


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("tune", ["frozen", "full", "last:1", "lora:4"])
def test_weights_are_counted_in_the_type_that_they_are_trained_in(tune: str, dtype: str, precision: str) -> None:
    """The plan's bytes are those of the model's own tensors when its training begins; autocast's copies beside."""
    from n2kit.builder import from_plan
    from n2kit.train.engine import _to_precision
    from n2kit.utils.device import DTYPES

    made = plan(**{"llm.tune": tune, "llm.dtype": dtype, "vision.dtype": dtype, "train.precision": precision})
    model = from_plan(made)
    _to_precision(model, DTYPES[precision])
    held = sum(p.numel() * p.element_size() for p in model.parameters())
    copies = 2 * made.trainable if precision == "bf16" else 0
    assert estimate(made).weights - copies == pytest.approx(held, rel=0.02)


def test_qlora_and_a_folder_s_own_type_are_counted(tmp_path: Any) -> None:
    lora, packed = (estimate(plan("qwen:4b", "siglip", **{"llm.tune": f"{t}:16"})) for t in ("lora", "qlora"))
    assert packed.weights < lora.weights / 2
    assert packed.gradients == lora.gradients
    card = plan("bert:base", "siglip", variant="late_early_fusion", **{"llm.tune": "frozen"})
    assert loaded_bytes(card, next(r for r in card.rows if r.part == "llm")) == 4
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "dtype": "float32"}')
    made = plan("qwen:4b", "siglip")
    made.components["llm"] = replace(made.components["llm"], weights=WeightsUri("file", str(tmp_path)))
    assert loaded_bytes(made, made.rows[2]) == 4


def test_savings_are_in_the_estimate() -> None:
    def activations(**settings: Any) -> float:
        return estimate(plan("qwen:0.6b", "siglip", **settings)).activations

    few, plain = activations(**{"train.grad_cache": 8}), activations()
    assert plain / 4 <= few < plain / 3.5  # of 32 items, 8 at a time; all of their features
    assert activations(**{"train.grad_cache": 64}) == plain
    assert activations(**{"train.grad_cache": 8, "train.batch_size": 64}) < plain
    assert activations(**{"train.checkpointing": True}) < plain / 5
    alone = activations(variant="only_late_fusion", **{"llm.tune": "frozen"})
    assert alone < plain / 100  # nothing trained in the prompt: its state is computed once


def test_memory_that_does_not_fit_is_refused_or_noted_with_what_fits() -> None:
    made = plan("qwen:4b", "siglip")
    fit_memory(made, 40 * GB)
    (refusal,) = made.refusals
    assert "and the device has 40.0" in refusal.message
    assert refusal.hint == "--tune llm=lora:16 --set train.grad_cache=8 (18.9 GB); or --llm qwen:0.6b (22.7 GB)"
    made = plan("qwen:4b", "siglip", **{"llm.tune": "lora:16", "train.grad_cache": 8})
    fit_memory(made, 40 * GB)
    assert (made.refusals, [n for n in made.notes if "training may" in n]) == ([], [])
    fit_memory(made, 4 * GB, presets=False)
    assert made.refusals[0].hint == "smaller parts, or a larger device"
    tight = plan("qwen:0.6b", "siglip", **{"train.batch_size": 256})
    fit_memory(tight, 24 * GB)
    assert tight.refusals == []
    batch = batch_that_fits(tight, 24 * GB)
    assert any("train.grad_cache=8 (15.0 GB)" in n and f"--set train.batch_size={batch} fits" in n for n in tight.notes)
    assert estimate(plan("qwen:0.6b", "siglip", **{"train.batch_size": batch})).total <= 24 * GB
    assert estimate(plan("qwen:0.6b", "siglip", **{"train.batch_size": batch + 1})).total > 24 * GB
    cached = plan("qwen:0.6b", "siglip", **{"train.grad_cache": 8})
    most = batch_that_fits(cached, 24 * GB)
    assert most > 50 * batch
    assert estimate(with_settings(cached, {"train.batch_size": most})).total <= 24 * GB


@pytest.mark.parametrize("memory", [2, 6, 12, 24, 48, 80, 200])
@pytest.mark.parametrize("llm", ["qwen:0.6b", "qwen:4b", "llama:3.1-8b", "bert:base"])
def test_every_way_that_a_hint_names_fits_when_it_is_taken(llm: str, memory: int) -> None:
    flags = {"variant": "late_early_fusion"} if llm.startswith("bert") else {}
    made = plan(llm, "siglip", **flags)
    ways = [*tuned(made, memory * GB), *saved(made, memory * GB), *smaller(made, memory * GB)]
    for way in ways:
        words = shlex.split(way.flags)
        given: dict[str, Any] = dict(flags)
        for flag, value in zip(words[::2], words[1::2], strict=True):
            given |= {"--tune": tune_flags, "--set": lambda v: parse_sets([v]), "--llm": lambda v: {"llm": v}}[flag](
                value
            )
        again = plan(**{"llm": llm, "vision": "siglip", **given})
        assert estimate(again).total == way.memory <= memory * GB, way.flags
        assert again.refusals == []


def test_suggestions_fit_and_are_the_largest_first() -> None:
    found = suggest(24 * GB, {})
    sizes = [one.plan.parameters for one in found]
    assert len(found) > 50
    assert sizes == sorted(sizes, reverse=True)
    assert all(one.memory <= 24 * GB and not one.plan.refusals and one.seconds > 0 for one in found)
    assert len({one.plan.id for one in found}) == len(found)
    assert {one.plan.id for one in suggest(8 * GB, {})} < {one.plan.id for one in found}
    (same,) = {one.plan.components["llm"].reference for one in suggest(24 * GB, {"llm": "qwen:0.6b"})}
    assert same == "qwen:0.6b"
    both = suggest(24 * GB, {"llm": "qwen:4b", "vision": "siglip"})
    assert [one.flags.split()[1] for one in both] == ["llm=lora:16", "llm=qlora:16", "llm=frozen"]
    half, whole = (suggest(24 * GB, {"llm": "qwen:4b", "vision": "siglip"}, tflops=t)[0].seconds for t in (200, 100))
    assert whole == 2 * half
    only = suggest(24 * GB, {"vision": "clip", "licences": ["mit"]})
    assert {name for one in only for name in one.licences} == {"mit"}


def test_suggestions_on_the_command_line(cli: Any) -> None:
    shown = cli("plan", "--memory", "24", "--suggest")
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 2 + 20
    assert "fit 24.0 GB (as given); times at 100 TFLOP/s (--tflops); " in shown.err
    facts = json.loads(cli("plan", "--memory", "24", "--suggest", "--llm", "qwen:4b", "--json").out)
    assert facts["fits"][0].keys() >= {"id", "flags", "memory_gb", "seconds", "licences"}
    nothing = cli("plan", "--memory", "0.1", "--suggest")
    assert (nothing.code, nothing.err.splitlines()[0]) == (
        2,
        "error: nothing of the catalogue can be trained in 0.1 GB (as given)",
    )
    assert cli("plan", "qwen:tiny+siglip:tiny", "--suggest").code == 2


def test_a_build_proposes_lora_where_full_tuning_does_not_fit(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2kit.planning.memory.device_memory", lambda device=None: (24 * GB, "a GPU"))
    built = cli("build", "--llm", "qwen:4b", "--vision", "siglip", "--dry-run")
    assert built.code == 0
    assert (
        "note: training with llm.tune full takes 108.1 GB, and this device has 24.0 (a GPU): --tune llm=lora:16"
        in built.err
    )
    notes = json.loads(cli("build", "--llm", "qwen:4b", "--vision", "siglip", "--dry-run", "--json").out)["notes"]
    assert any("--tune llm=lora:16" in note for note in notes)
    assert "--tune llm=lora" not in cli("build", "--llm", "qwen:tiny", "--vision", "siglip:tiny", "--dry-run").err


def test_versions_are_checked_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from n2kit.plugins import catalogue as registries

    catalogue = registries.Catalogue(registries.manager(), [])
    for registered in catalogue.plugins.components("vision"):
        if registered.spec.name == "clip":
            monkeypatch.setitem(vars(registered.spec), "requires", ("pillow>=10", "nothing-like-this>=2"))
    with pytest.raises(Unavailable, match="needs nothing-like-this>=2 \\(not installed\\)") as caught:
        plan()
    assert caught.value.hint == 'pip install "nothing-like-this>=2"'


def test_ids_are_pasted_back() -> None:
    for flags in (
        {},
        {"variant": "basic"},
        {"variant": "text_only"},
        {"variant": "only_late_fusion"},
        {"fusion": "cross-attention", "connector": "resampler:8"},
    ):
        made = plan(**flags)
        again = resolve(parse_id(made.id), env={})
        assert make_plan(again.recipe, requested=again.origin).id == made.id
    whole = resolve({"mllm": "llava:tiny", "fusion": "gate"}, env={})
    made = make_plan(whole.recipe, requested=whole.origin)
    assert made.id == "llava:tiny+gate"
    assert parse_id(made.id) == {"variant": "notellm2", "mllm": "llava:tiny", "fusion": "gate"}
    assert [r.part for r in made.rows] == ["vision", "connector", "llm", "fusion", "head", "loss"]


def test_two_tiny_backbones_get_a_tiny_connector_unless_another_one_is_asked_for() -> None:
    def connector(**flags: Any) -> tuple[str, bool]:
        made = plan(**flags)
        row = next(r for r in made.rows if r.part == "connector")
        assert made.recipe.connector.name in (row.name, "qformer")
        return row.name, row.parameters < 100_000

    assert connector() == ("qformer:tiny", True)
    assert connector(connector="qformer") == ("qformer:16", False)
    assert connector(llm="qwen") == ("qformer:16", False)
    assert connector(vision="siglip") == ("qformer:16", False)
    assert connector(**{"connector.tokens": 8}) == ("qformer:8", False)


def test_what_a_multimodal_llm_replaces_is_said() -> None:
    made = resolve({"mllm": "llava:tiny", "llm": "qwen:tiny"}, env={})
    notes = make_plan(made.recipe, requested=made.origin).notes
    assert "mllm llava:tiny brings its own llm: what was named is left out" in notes


def test_a_plan_imports_nothing_heavy_for_any_tiny() -> None:
    """In one interpreter: every tiny of every kind, and the catalogue's defaults."""
    code = """
import json, sys
from n2kit.planning.planner import make_plan
from n2kit.recipe.settings import resolve
from n2kit.testing.references import references
made = 0
for kind in ("llm", "vision", "connector", "fusion", "loss", "mllm"):
    for name in references(kind, "n2kit"):
        flags = {"llm": "qwen:tiny", "vision": "clip:tiny", "connector": "mlp", kind: name}
        resolved = resolve(flags, env={})
        make_plan(resolved.recipe)
        made += 1
for llm in ("qwen", "llama:2-7b", "smollm2"):
    make_plan(resolve({"llm": llm, "vision": "siglip"}, env={}).recipe)
print(json.dumps([made, [m for m in ("torch", "transformers", "timm", "open_clip") if m in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made, heavy = json.loads(done.stdout)
    assert made > 80
    assert heavy == []


def test_the_prompt_goes_by_the_language_model_s_size() -> None:
    for llm, name in (
        ("qwen:tiny", "compact"),
        ("smollm2:135m", "compact"),
        ("qwen:0.6b", "compact"),
        ("qwen:4b", "en"),
    ):
        recipe = resolve({"llm": llm, "variant": "text_only"}, env={}).recipe
        assert make_plan(recipe).recipe.prompt.template == name, llm
    named = resolve({"llm": "qwen:tiny", "variant": "text_only", "prompt.template": "zh"}, env={}).recipe
    assert make_plan(named).recipe.prompt.template == "zh"
