"""The conformance kit catches what it promises to catch: each law fails on a part that breaks it, and on no sound one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from n2kit.contract.interfaces import VisionOut
from n2kit.contract.kinds import KINDS
from n2kit.plugins.manager import Plugin
from n2kit.testing import component_under_test, laws_of
from n2kit.testing.check import check_component, try_law
from n2kit.testing.matrix import (
    Combination,
    MatrixSummary,
    assert_model_works,
    combinations,
    components_of,
    run,
    uncovered,
)
from n2kit.testing.under_test import ComponentUnderTest, class_under_test

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin-hello"


def spoiled(kind: Any, reference: str, spoil: Callable[[Any], None], **spec: Any) -> ComponentUnderTest:
    """A component whose parts have been tampered with."""
    sound = component_under_test(kind, reference)
    registered = replace(sound.component.registered, spec=replace(sound.spec, **spec))

    class Spoiled(class_under_test(kind)):  # type: ignore[misc]
        def make(self) -> Any:
            part = super().make()
            spoil(part)
            return part

    return Spoiled(replace(sound.component, registered=registered))


def outcome(under_test: ComponentUnderTest, law: str) -> tuple[str, str]:
    found = try_law(next(entry for entry in laws_of(under_test.kind) if entry.name == law), under_test)
    return found.state, found.reason


def wrap(change: Callable[..., Any]) -> Callable[[Any], None]:
    """Spoil a part's forward: `change(part, original, *inputs, **facts)`."""

    def spoil(part: Any) -> None:
        original = part.forward
        part.forward = lambda *inputs, **facts: change(part, original, *inputs, **facts)

    return spoil


def blind(part: Any, forward: Any, pixels: Tensor) -> VisionOut:
    out = forward(torch.zeros_like(pixels))
    return VisionOut(out.tokens, out.pooled)


def jitter(part: Any, forward: Any, *inputs: Any, **facts: Any) -> Any:
    out = forward(*inputs, **facts)
    return out + torch.rand_like(out) * 1e-3


def whole_batch(part: Any, forward: Any, *inputs: Any, **facts: Any) -> Any:
    out = forward(*inputs, **facts)
    return out - out.mean(0, keepdim=True)


def both_ways(part: Any, forward: Any, x: Tensor) -> Tensor:
    return forward(x) + x.mean(1, keepdim=True)


def ignores_first(part: Any, forward: Any, x: Tensor) -> Tensor:
    return x.clone()


def detached(part: Any, forward: Any, *inputs: Any, **facts: Any) -> Any:
    return forward(*(i.detach() if isinstance(i, Tensor) else i for i in inputs), **facts)


def silent_parameter(part: Any) -> None:
    part.unused = nn.Parameter(torch.zeros(3))


def drifting(part: Any) -> None:
    part.register_buffer("seen", torch.zeros(()))
    original = part.forward

    def forward(*inputs: Any, **facts: Any) -> Any:
        part.seen += 1
        return original(*inputs, **facts)

    part.forward = forward


def another_card(**facts: Any) -> Callable[[Any], None]:
    def spoil(part: Any) -> None:
        part.card = replace(part.card, **facts)

    return spoil


CASES: list[tuple[str, str, Any, str, str]] = [
    ("vision", "clip:tiny", wrap(blind), "the_image_matters", "nothing changes"),
    ("vision", "clip:tiny", another_card(token_width=31), "shapes_are_those_of_the_card", "the card says [2, 17, 31]"),
    ("vision", "clip:tiny", another_card(parameters=1), "card_is_what_is_measured", "parameters declared"),
    ("vision", "clip:tiny", another_card(prefix_tokens=17), "prefix_tokens_come_before_a_grid", "17 of 17"),
    ("vision", "clip:tiny", another_card(image_size=16), "the_transform_takes_any_image", "the card says 16 px"),
    ("vision", "clip:tiny", drifting, "frozen_stays_bit_equal", "changed: seen"),
    ("llm", "qwen:tiny", wrap(both_ways), "no_later_token_leaks", "the card says causal"),
    ("llm", "qwen:tiny", wrap(both_ways), "padding_on_the_right_changes_nothing", "differ by"),
    ("llm", "qwen:tiny", wrap(ignores_first), "every_token_matters", "nothing changes"),
    ("llm", "qwen:tiny", wrap(detached), "gradients_reach_the_embeddings", "does not require grad"),
    ("llm", "qwen:tiny", wrap(whole_batch), "a_batch_row_equals_a_single_row", "differ by"),
    ("llm", "qwen:tiny", another_card(vocab=100), "the_tokenizer_fits_the_table", "the table 100 rows"),
    ("llm", "qwen:tiny", wrap(jitter), "same_input_same_output", "a second call differs"),
    ("connector", "mlp:tiny", silent_parameter, "every_parameter_gets_a_gradient", "no finite gradient in unused"),
    ("connector", "mlp:tiny", silent_parameter, "parameters_are_counted_exactly", "the part has"),
    ("connector", "mlp:tiny", silent_parameter, "saved_and_loaded_is_bit_equal", "Error(s) in loading"),
    ("connector", "mlp:tiny", wrap(detached), "gradients_reach_the_image", "get no gradient"),
    ("connector", "mlp:tiny", lambda p: setattr(p, "tokens", 5), "gives_the_tokens_it_promises", "4 tokens, the part 5"),
    ("fusion", "gate", wrap(lambda p, f, h, v: h), "the_image_matters", "nothing changes"),
    ("fusion", "gate", wrap(lambda p, f, h, v: f(h, v)[:, :5]), "has_the_width_of_its_card", "forward gives [3, 5]"),
    ("loss", "infonce", wrap(lambda p, f, v, present=None, exclude=None: f(v)), "excluded_rows_push_nothing", "is `exclude` heeded?"),
    ("vision", "clip:tiny", another_card(prefix_tokens=9), "prefix_tokens_come_before_a_grid", "behind 1 there is one"),
    ("vision", "clip:tiny", lambda p: setattr(p, "blocks", lambda: [p.model.pre_layrnorm]), "blocks_run_in_their_order", "of the parameters"),
    ("loss", "notellm2", wrap(lambda p, f, *a, **k: f(*a, **k)._replace(loss=-f(*a, **k).loss)), "excluded_rows_are_no_negatives", "up to"),
    ("loss", "notellm2", wrap(lambda p, f, v, *a, **k: f(v, *a, **k)._replace(loss=v["multimodal"].sum())), "the_length_of_vectors_does_not_matter", "becomes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "reference", "spoil", "law", "reason"), CASES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_broken_part_fails_its_law(kind: Any, reference: str, spoil: Any, law: str, reason: str) -> None:
    state, found = outcome(spoiled(kind, reference, spoil), law)
    assert state == "failed"
    assert reason in found
    assert outcome(component_under_test(kind, reference), law)[0] == "passed"


CARELESS: list[tuple[Callable[[], Any], str]] = [
    (lambda: torch.set_default_dtype(torch.float64), "the default dtype"),
    (lambda: os.environ.update(A_PART="1"), "the environment"),
    (lambda: os.chdir("/"), "the current folder"),
    (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "signal handlers"),
    (lambda: random.seed(7), "the state of random"),
    (lambda: np.random.seed(7), "the state of numpy's generator"),
    (lambda: warnings.simplefilter("ignore"), "filters of warnings"),
    (lambda: setattr(json, "dumps", lambda *a, **k: ""), "json.dumps"),
    (lambda: torch.set_grad_enabled(False), "grad mode"),
]


@pytest.mark.parametrize(("careless", "what"), CARELESS, ids=[what for _, what in CARELESS])
def test_a_part_that_changes_what_is_everybodys_fails(
    careless: Any, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_PART", "0")
    monkeypatch.setattr(json, "dumps", json.dumps)
    monkeypatch.chdir(tmp_path)
    handler, states = signal.getsignal(signal.SIGTERM), (random.getstate(), np.random.get_state())
    created: list[int] = []

    def late(part: Any) -> None:
        created.append(1)
        if len(created) == 2:
            careless()

    try:
        with warnings.catch_warnings():
            state, reason = outcome(spoiled("connector", "mlp:tiny", late), "the_process_stays_as_it_was")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        signal.signal(signal.SIGTERM, handler)
        random.setstate(states[0])
        np.random.set_state(states[1])
    assert state == "failed"
    assert reason == f"its creation changes {what}"
    assert outcome(component_under_test("connector", "mlp:tiny"), "the_process_stays_as_it_was")[0] == "passed"


def test_a_declared_capability_must_hold_and_another_is_a_hint() -> None:
    def overflows(part: Any) -> None:
        original = part.forward
        part.forward = lambda x: original(x) * (torch.inf if x.dtype == torch.bfloat16 else 1)

    everything = frozenset({"blocks", "bfloat16"})
    assert outcome(spoiled("llm", "qwen:tiny", overflows, capabilities=everything), "works_in_bfloat16")[0] == "failed"
    none: frozenset[str] = frozenset()
    assert outcome(spoiled("llm", "qwen:tiny", overflows, capabilities=none), "works_in_bfloat16")[0] == "not declared"
    state, reason = outcome(spoiled("llm", "qwen:tiny", lambda part: None, capabilities=none), "works_in_bfloat16")
    assert (state, reason) == ("hint", "it could declare the capability 'bfloat16'")


def test_laws_have_texts_and_names_of_their_own() -> None:
    for kind in KINDS:
        laws = laws_of(kind)
        assert len({law.name for law in laws}) == len(laws) > 2
        assert all(law.text.endswith((".", ":", ";")) or law.text for law in laws)


def test_a_component_that_cannot_be_made_is_one_finding() -> None:
    (found,) = check_component("vision", "nothing-of-the-kind")
    assert (found.state, found.law) == ("failed", "resolves")


@pytest.fixture
def hello(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.syspath_prepend(EXAMPLE)
    yield "n2kit_hello"
    for name in [m for m in sys.modules if m.startswith("n2kit_hello")]:
        del sys.modules[name]


def test_suites_are_inherited(pytester: pytest.Pytester) -> None:
    """As an author writes it: `-k` finds a law, a broken law fails, an undeclared capability is a hint at the end."""
    pytester.makepyfile(
        test_mine="""
        from n2kit.testing import FusionSuite, parametrize_components, suite, component_under_test

        class TestGate(FusionSuite):
            component = "gate"

        TestClip = suite("vision", "clip:tiny")

        class TestBroken(FusionSuite):
            component = "no-such-fusion"

        @parametrize_components("fusion")
        def test_each(component):
            assert component_under_test(*component).kind == "fusion"
        """
    )
    outcome = pytester.runpytest_inprocess("-q", "-k", "TestGate and (matters or width)", "-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=3)
    outcome = pytester.runpytest_inprocess("-q", "-k", "TestClip and measured", "-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=1)
    outcome = pytester.runpytest_inprocess("-q", "-k", "TestBroken and width", "-p", "no:cacheprovider")
    outcome.assert_outcomes(errors=2)
    outcome = pytester.runpytest_inprocess("-q", "-k", "fusion/gate or fusion/none", "-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=2)


def test_the_matrix_covers_every_pair_and_names_what_fails() -> None:
    names = components_of()
    tried = list(combinations(names))
    assert len(tried) == len(names["vision"]) * len(names["llm"]) * len(names["connector"])
    assert uncovered(names, tried) == []
    few = {kind: values[:2] for kind, values in names.items()}
    assert ("fusion x", "loss y") in uncovered(
        few | {"fusion": ["x"], "loss": ["y"]}, [Combination("a", "b", "c", "d", "e")]
    )
    summary = MatrixSummary(passed=3, failed={"a+b": "the image does not matter"})
    assert "3 combinations hold, 0 are refused, 1 fail" in str(summary)
    assert "FAILED a+b: the image does not matter" in str(summary)


def test_a_few_cells_of_the_matrix() -> None:
    few = {kind: values[:2] for kind, values in components_of().items()} | {"llm": ["bert:tiny", "qwen:tiny"]}
    summary = run(list(combinations(few)))
    assert summary.failed == {}
    assert summary.passed + summary.refused.total() == 8
    assert summary.passed >= 6


def test_the_matrix_notices_a_blind_model() -> None:
    import n2kit

    model = n2kit.build(
        "qwen:tiny", "clip:tiny", connector="mlp:4", settings={"llm.tune": "full", "vision.tune": "full"}
    ).eval()
    assert_model_works(model)
    model.vision.forward = lambda pixels: VisionOut(  # type: ignore[union-attr,method-assign]
        torch.zeros(len(pixels), 17, 32), torch.zeros(len(pixels), 32)
    )
    with pytest.raises(AssertionError, match="no gradient in vision|the image does not matter"):
        assert_model_works(model)


SQUARE = """
from n2kit.contract import ComponentSpec, ConnectorCard, hookimpl
from n2kit.errors import Mismatch
from pydantic import BaseModel

N2KIT_PLUGIN_API = (2, 1)

class Options(BaseModel):
    pass

def card(config, vision, llm):
    if vision.tokens != 49:
        raise Mismatch(f"square reads 7 × 7 tokens, and there are {vision.tokens}", "another connector")
    return ConnectorCard(49, vision.token_width * llm.input_width)

def spec(name, **more):
    return ComponentSpec(kind="connector", name=name, summary="s", target="square_parts:Square", config="square:Options",
                         card="square:card", **more)

@hookimpl
def n2kit_register_components():
    partners = PARTNERS
    waived = {"a_batch_row_equals_a_single_row": "it centres a batch", "every_law": "I like none"}
    return [spec("square"), spec("beside", partners=partners, waived=waived), spec("silent", waived={"the_image_matters": " "})]
"""
SQUARE_PARTS = """
from torch import nn
from n2kit.contract import Connector
from square import Options

class Square(Connector):
    config_class, tokens = Options, 49
    def __init__(self, config, vision, llm):
        super().__init__(config, vision=vision, llm=llm)
        self.project = nn.Linear(vision.token_width, llm.input_width, bias=False)
    def forward(self, tokens, mask=None):
        return self.project(tokens - tokens.mean(0, keepdim=True))
"""


def test_partners_and_waived_laws_of_a_connector_for_one_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from installed import install, on_path
    from n2kit.plugins.manager import manager
    from n2kit.testing.probe import law_results

    page = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text("utf8")
    (partners,) = re.findall(
        r"for a connector that reads 7 × 7 tokens alone `(\{.*?\})`", page
    )  # as an author copies it
    install(
        tmp_path, "square-dist", {"square.py": SQUARE.replace("PARTNERS", partners), "square_parts.py": SQUARE_PARTS}
    )
    with on_path(tmp_path, monkeypatch):
        (plugin,) = manager().named("square-dist")
        assert plugin.left_out == {"connector 'silent'": "connector 'silent' waives the_image_matters without a reason"}
        found = list(law_results(plugin))
        alone = [f for f in found if f.component.endswith("/square") and f.state == "failed"]
        assert any("square reads 7 × 7 tokens, and there are" in f.reason for f in alone)
        beside = [f for f in found if f.component.endswith("beside")]
        assert [(f.law, f.reason) for f in beside if f.state == "failed"] == [
            ("waives every_law", "there is no such law; its suite has a test for each law")
        ]
        (waived,) = [f for f in beside if f.state == "waived"]
        assert waived.law == "a_batch_row_equals_a_single_row"
        assert waived.reason.startswith("it centres a batch (a row in a batch")
        assert {f.law for f in beside if f.state == "passed"} >= {"joins_a_model", "gives_the_tokens_it_promises"}
        kept = component_under_test("connector", "square").beside(json.loads(partners))
        assert kept.cards[0].tokens == 49


def test_processes_are_started_and_asked_for_their_exit_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ask all other processes for their exit code, too, which can be read once."""
    from n2kit.testing import probe

    inside, most = [0], [0]

    class Process:
        exitcode = 0

        def __init__(self, **_: Any) -> None:
            self.sentinel, writes = os.pipe()
            os.close(writes)  # it has ended

        def start(self) -> None:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

        def join(self) -> None:
            self.start()
            os.close(self.sentinel)

    monkeypatch.setattr(probe, "_context", lambda: SimpleNamespace(Process=Process))
    plugin = Plugin("p", "p-dist", "", "p")
    with ThreadPoolExecutor(4) as pool:
        codes = pool.map(lambda n: probe._hold(plugin, {}, tmp_path / f"{n}", tmp_path / "err"), range(8))
        assert [*codes] == [0] * 8
    assert most == [1]
