"""The plan's rules: each refusal names both sides, the numbers and a fix that works."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from n2kit.errors import Unavailable
from n2kit.planning.memory import GB, batch_that_fits, estimate
from n2kit.planning.plan import Plan
from n2kit.planning.planner import make_plan, parse_id
from n2kit.planning.rules import embeds, fit_memory
from n2kit.recipe.settings import parse_sets, resolve


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
    assert full.weights == 6 * trained + 2 * frozen  # float32 and autocast's copy; 16 bits as published
    assert small.weights == full.weights - 4 * made.rows[2].parameters
    assert full.gradients > small.gradients
    assert full.optimiser == 2 * full.gradients
    twice = estimate(plan("qwen:4b", "siglip", **{"train.batch_size": 32}))
    assert twice.activations == 2 * full.activations
    wide = estimate(plan("qwen:4b", "siglip", **{"train.precision": "fp32"}))
    assert wide.activations > full.activations
    tuned = estimate(plan("qwen:4b", "siglip", **{"vision.tune": "full"}))
    assert tuned.activations > full.activations


def test_memory_that_does_not_fit_is_refused_or_noted() -> None:
    made = plan("qwen:4b", "siglip")
    fit_memory(made, 40 * GB)
    (refusal,) = made.refusals
    assert "and the device has 40.0" in refusal.message
    assert refusal.hint == "--set llm.tune=frozen"
    made = plan("qwen:4b", "siglip", **{"llm.tune": "frozen"})
    fit_memory(made, 40 * GB)
    assert made.refusals == []
    fit_memory(made, 4 * GB)
    assert made.refusals[0].hint == "smaller parts, or a larger device"
    tight = plan("qwen:0.6b", "siglip", **{"train.batch_size": 256})
    fit_memory(tight, 24 * GB)
    assert tight.refusals == []
    batch = batch_that_fits(tight, 24 * GB)
    assert any(f"--set train.batch_size={batch} fits" in note for note in tight.notes)
    assert estimate(plan("qwen:0.6b", "siglip", **{"train.batch_size": batch})).total <= 24 * GB


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
