"""A frozen LLM's states are computed once a row of tokens, and change nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import n2kit
from n2kit import Item, read_items, read_pairs
from n2kit.bundle import io as bundle
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.embed import embed
from n2kit.inputs.feature_cache import feature_cache
from n2kit.inputs.reader import Reader
from n2kit.inputs.state_cache import StateCache, StateStore, state_cache
from n2kit.modeling.model import Model
from n2kit.modeling.partial_forward import UpperLayers, forward_until, num_frozen_layers
from n2kit.modeling.prefix_sharing import ExecutionOptions
from n2kit.recipe.settings import resolve
from n2kit.train import RunResult, train
from n2kit.train.pairs import PairCollator
from n2kit.train.step import TrainStep

ITEMS = Items(
    [
        *(Item(f"p{n}", f"noto_{n}.png", f"thing {n}" + " and so on" * n) for n in range(1, 5)),
        *(Item(f"t{n}", "", f"only words {n}" + " and so on" * n) for n in range(4)),
    ]
)
PAIRS = Pairs([("p1", "p2"), ("p1", "t1"), ("t2", "p3"), ("p4", "t0"), ("t0", "t3")])


def make(variant: str, **settings: Any) -> Model:
    given = {"head.width": 16, "llm.tune": "frozen", **settings}
    made = n2kit.build("qwen:tiny", "siglip:tiny", connector="mlp:4", variant=variant, settings=given)
    made.prepare_for(torch.float32)
    return made.train()


class Reads:
    """The number of rows that an LLM has read."""

    def __init__(self, model: Model) -> None:
        self.rows = 0
        assert model.llm.supports_prefix_cache
        model.llm.register_forward_pre_hook(self._count)

    def _count(self, _: Any, given: tuple[Tensor, ...]) -> None:
        self.rows += len(given[0])


class Blocks:
    """The number of rows that a block has run for."""

    def __init__(self, block: torch.nn.Module) -> None:
        self.rows, forward = 0, block.forward

        def counted(hidden: Tensor, *rest: Any, **options: Any) -> Any:
            self.rows += len(hidden)
            return forward(hidden, *rest, **options)

        block.forward = counted  # type: ignore[method-assign]


def inputs_of(model: Model, images: Path, states: StateCache | None) -> dict[str, Any]:
    reader = Reader(model.prompt_builder, model.vision, images, states=states)
    inputs = PairCollator(ITEMS, PAIRS, reader)(list(PAIRS))
    return {name: inputs[name] for name in ("batch", "item_index", "exclude")}


def gradients(model: Model, inputs: dict[str, Any], chunk: int | None = None) -> dict[str, Tensor]:
    step = TrainStep(model, torch.float32, chunk)
    step.zero_grad()
    loss = step(**inputs)["loss"]
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize(("variant", "read"), [("text_only", 0), ("only_late_fusion", 0), ("notellm2", 4)])
def test_kept_states_give_the_loss_and_the_gradients(
    variant: str, read: int, chunk: int | None, workspace: Path
) -> None:
    """Under notellm2 the four items with a picture are read: the connector before them is trained."""
    model = make(variant)
    plain = gradients(model, inputs_of(model, workspace / "images", None))
    cache = state_cache(model.llm, 1.0, torch.float32)
    inputs_of(model, workspace / "images", cache)
    reads = Reads(model)
    inputs = inputs_of(model, workspace / "images", cache)
    assert reads.rows == 0
    cached = gradients(model, inputs, chunk)
    assert reads.rows == read * (1 if chunk is None else 2)  # chunks are encoded twice
    for name, want in plain.items():
        got = cached.get(name, torch.zeros_like(want))  # our words' is zero where no row has one
        assert (got - want).abs().max() <= 1e-5 * want.abs().max().clamp_min(1), name


@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize(("variant", "read"), [("text_only", 7), ("notellm2", 7)])
def test_what_frozen_blocks_give_is_kept_and_the_others_read_on_from_there(
    variant: str, read: int, chunk: int | None, workspace: Path
) -> None:
    model = make(variant, **{"llm.tune": "last:1"})
    plain = gradients(model, inputs_of(model, workspace / "images", None))
    cache = state_cache(model.llm, 1.0, torch.float32)
    assert cache is not None
    assert cache.num_layers == 1
    inputs_of(model, workspace / "images", cache)
    lower, upper = (Blocks(block) for block in model.llm.blocks())
    inputs = inputs_of(model, workspace / "images", cache)
    assert {len(t) for t in inputs["batch"].cached_states.values()} <= {int(n) + 1 for n in inputs["batch"].pool_pos}
    assert (lower.rows, upper.rows) == (0, 0)
    model.execution_options = ExecutionOptions(share_prefix=False)
    cached = gradients(model, inputs, chunk)
    twice = 1 if chunk is None else 2
    pictured = 0 if variant == "text_only" else 4
    assert lower.rows == pictured * twice
    assert upper.rows == len(inputs["batch"].ids) * twice
    for name, want in plain.items():
        got = cached.get(name, torch.zeros_like(want))
        assert (got - want).abs().max() <= 1e-5 * want.abs().max().clamp_min(1), name
    assert any(name.startswith("llm.") for name in plain)


@pytest.mark.parametrize(
    "llm", ["llama:tiny", "gpt2:tiny", "bloom:tiny", "falcon:tiny", "gemma:tiny-3", "mamba:tiny", "opt:tiny"]
)
def test_an_llm_is_cut_where_that_changes_nothing(llm: str) -> None:
    """Where dropout stands outside the frozen blocks, or may, no state is constant in training; in use it is."""
    part = n2kit.build(llm, "siglip:tiny", variant="text_only", settings={"llm.tune": "last:1"}).llm
    tuples = llm in ("bloom:tiny", "falcon:tiny")  # of blocks that give more than hidden states
    assert num_frozen_layers(part.eval()) == (0 if tuples else 1)
    if tuples:
        return
    assert num_frozen_layers(part.train()) == (0 if llm in ("gpt2:tiny", "opt:tiny") else 1)
    x = part.eval().embed(torch.arange(24).view(2, 12))
    with torch.no_grad():
        assert (UpperLayers(part, 1)(forward_until(part, x, 1)) - part(x)).abs().max() < 1e-5
    assert not [block for block in part.blocks() if "forward" in vars(block)]


def test_only_a_frozen_llm_has_states_to_keep() -> None:
    for tune in ("full", "lora:2", "last:2"):
        assert state_cache(make("text_only", **{"llm.tune": tune}).llm, 1.0, torch.float32) is None
    assert state_cache(make("text_only").llm, 0, torch.float32) is None


def test_states_are_bounded(workspace: Path) -> None:
    model = make("text_only")
    cache = StateCache(model.llm, 300, torch.float32)
    inputs_of(model, workspace / "images", cache)
    assert len(cache.kept) == 2  # of 32 float32 each
    assert cache.bytes == 256


@pytest.fixture
def run(workspace: Path, tmp_path: Path) -> Any:
    items = read_items(workspace / "items.jsonl")

    def call(folder: str, **settings: Any) -> RunResult:
        source = tmp_path / "bundle"
        if not source.exists():
            make("only_late_fusion").save(source)
        given = {"train.batch_size": 4, "train.log_steps": 1, "train.precision": "fp32", "train.max_steps": 6}
        recipe = resolve(given | settings, base=bundle.read_recipe(source), env={}).recipe
        return train(
            source, items, read_pairs(workspace / "train.csv", items), recipe, tmp_path / folder,
            images=workspace / "images", val_pairs=read_pairs(workspace / "val.csv", items),
        )  # fmt: skip

    return call


def test_the_second_epoch_the_second_run_and_embedding_read_nothing(
    run: Any, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    compute = StateCache._compute

    def counted(self: StateCache, rows: list[Any]) -> list[Tensor]:
        computed.append(len(rows))
        return compute(self, rows)

    monkeypatch.setattr(StateCache, "_compute", counted)
    first = run("first")  # 8 pairs by 4: three epochs
    assert sum(computed) == len({f"thing {n}" for n in range(10)})  # both drawings of a thing have the same text
    run_two = run("second", **{"train.feature_cache_gb": 3.0})
    assert sum(computed) == 10
    none = run("none", **{"train.feature_cache_gb": 0})
    assert first.frozen == run_two.frozen == none.frozen != ""
    one, two, three = (bundle.load(r.bundle).state_dict() for r in (first, run_two, none))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert max(float((one[k].float() - three[k].float()).abs().max()) for k in one) < 1e-5
    model = bundle.load(first.bundle)
    items = read_items(workspace / "items.jsonl")
    embed(model, "x", items, tmp_path / "v.parquet", images=workspace / "images", precision="fp32")
    assert sum(computed) == 12  # the two things of the test pairs
    model.recipe.train.feature_cache_gb = 0
    kept = n2kit.embed.read_vectors(tmp_path / "v.parquet").vectors
    plain = model.encode(items.items, images=workspace / "images", precision="fp32")
    np.testing.assert_allclose(kept, plain, atol=2e-6)


def test_states_of_another_llm_precision_or_adapter_are_not_taken() -> None:
    def name(tune: str = "frozen", dtype: str = "", change: Any = None) -> str:
        llm = make("text_only", **{"llm.tune": tune}).llm
        if change is not None:
            change(llm)
        return StateStore(llm, 10**9, dtype).fingerprint()

    def nudge(llm: Any) -> None:
        next(llm.parameters()).data.view(-1)[0] += 1e-3

    def retheta(llm: Any) -> None:
        llm.model.config.rope_parameters["rope_theta"] = 5.0

    def narrow(llm: Any) -> None:
        llm.bfloat16()

    assert name() == name()
    assert len({name(), name(dtype="bf16"), name(change=nudge), name(change=retheta), name(change=narrow), name("lora:2"), name("lora:2:9")}) == 7  # fmt: skip
    assert len(list((Path(os.environ["N2KIT_CACHE"])).rglob("*.safetensors"))) == 0


def test_features_and_states_share_a_folder_and_its_bound(workspace: Path) -> None:
    model = make("only_late_fusion")
    states = state_cache(model.llm, 1.0, torch.float32)
    features = feature_cache(model.vision, 1.0, workspace / "images", torch.float32)
    assert states is not None
    assert features is not None
    assert states.store is not None
    assert features.store is not None
    assert (states.store.read("0"), features.store.find("0")) == (None, None)
    one, two = (store._folder for store in (states.store, features.store))
    assert one is not None
    assert two is not None
    assert one.parent == two.parent
    assert one != two
