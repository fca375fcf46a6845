"""Reading less gives the same: a common start read once, rows of like length together; loss and gradients unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import n2kit
from n2kit import Item
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.embed import encode
from n2kit.embed.batches import group_sizes
from n2kit.inputs.reader import Reader
from n2kit.modeling.model import Model
from n2kit.modeling.prefix_sharing import NO_OPTIMIZATION, ExecutionOptions, cheapest_groups, common_prefix_length
from n2kit.modeling.prompts import IMG
from n2kit.train.checks import frozen_fingerprint
from n2kit.train.pairs import PairCollator
from n2kit.train.step import TrainStep

LONG = " and so on" * 6
ITEMS = Items(
    [
        *(Item(f"p{n}", f"noto_{n}.png", f"thing {n}" + LONG * (n % 3)) for n in range(1, 7)),
        *(Item(f"t{n}", "", f"only words {n}" + LONG * (n % 4)) for n in range(4)),
        Item("i1", "twemoji_1.png"),
    ]
)
PAIRS = Pairs([("p1", "p2"), ("p1", "t1"), ("t2", "p3"), ("p4", "i1"), ("t0", "t3"), ("p5", "p6")])
EVERY_WAY = ExecutionOptions(share_prefix=True, max_tokens=300)


def make(variant: str = "notellm2", llm: str = "qwen:tiny", **settings: Any) -> Model:
    given = {"head.width": 16, "prompt.template": "en", **settings}  # whose beginning is long enough to be shared
    made = n2kit.build(llm, "siglip:tiny", connector="mlp:4", variant=variant, settings=given)
    made.prepare_for(torch.float32)
    return made.train()


def batch_of(model: Model, images: Path, pairs: Pairs = PAIRS) -> dict[str, Any]:
    inputs = PairCollator(ITEMS, pairs, Reader(model.prompt_builder, model.vision, images))(list(pairs))
    return {name: inputs[name] for name in ("batch", "item_index", "exclude")}


def gradients(
    model: Model, inputs: dict[str, Any], options: ExecutionOptions, chunk: int | None = None
) -> dict[str, Tensor]:
    """The gradient of every parameter that gets one, and the loss."""
    model.execution_options = options
    step = TrainStep(model, torch.float32, chunk)
    step.zero_grad()
    loss = step(**inputs)["loss"]
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    off = {k: float((one[k] - two[k]).abs().max() / one[k].abs().max().clamp_min(1)) for k in one}
    assert max(off.values()) < 1e-5, max(off, key=lambda k: off[k])


class Calls:
    """The calls of an LLM: the shape of each input, and the prefixes that were computed."""

    def __init__(self, model: Model) -> None:
        self.shapes: list[tuple[int, int]] = []
        self.prefixes: list[Tensor] = []
        assert model.llm.supports_prefix_cache  # asked now, since it tries by a few tokens
        prefill = model.llm.prefill

        def counted(x: Tensor) -> Any:
            self.prefixes.append(x)
            return prefill(x)

        model.llm.prefill = counted  # type: ignore[method-assign]
        model.llm.register_forward_pre_hook(lambda _, given: self.shapes.append(tuple(given[0].shape[:2])))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variant", "tune", "chunk"),
    [
        ("notellm2", "full", None), ("notellm2", "lora:4", 4), ("notellm2", "last:1", None), ("notellm2", "frozen", 4),
        ("notellm2", "frozen", None), ("text_only", "full", 4), ("text_only", "lora:4", None), ("only_late_fusion", "last:1", 4),
    ],
)  # fmt: skip
def test_a_start_read_once_changes_neither_loss_nor_gradient(
    variant: str, tune: str, chunk: int | None, workspace: Path
) -> None:
    """Items with both, with words alone, with a picture alone; every way to tune, in one piece and in chunks."""
    pairs = Pairs([p for p in PAIRS if "i1" not in p])
    model = make(variant, **{"llm.tune": tune})
    before = frozen_fingerprint(model)
    inputs = batch_of(model, workspace / "images", PAIRS if variant == "notellm2" else pairs)
    whole = gradients(model, inputs, NO_OPTIMIZATION)
    calls = Calls(model)
    assert_same(whole, gradients(model, inputs, EVERY_WAY, chunk))
    assert len(calls.shapes) > len(calls.prefixes) >= 1
    instruction = model.llm.tokenizer(model.prompt_builder.template.text.partition("{")[0])["input_ids"]
    assert all(x.shape[1] >= len(instruction) for x in calls.prefixes)
    assert frozen_fingerprint(model) == before


def test_with_dropout_no_row_shares_the_draws_of_another(workspace: Path) -> None:
    model = make(**{"llm.tune": "full"})
    inputs = batch_of(model, workspace / "images")
    calls = Calls(model)
    model.llm.blocks()[0].self_attn.attention_dropout = 0.1  # type: ignore[union-attr]
    gradients(model, inputs, EVERY_WAY)
    assert not calls.prefixes
    model.eval()
    gradients(model, inputs, EVERY_WAY)
    assert calls.prefixes


def test_nothing_is_differentiated_before_the_first_trained_thing(workspace: Path) -> None:
    """The instruction stands before the picture and the words: with a frozen LLM, its start has no graph."""
    model = make(**{"llm.tune": "frozen"})
    calls = Calls(model)
    gradients(model, batch_of(model, workspace / "images"), EVERY_WAY)
    assert not any(x.requires_grad for x in calls.prefixes)
    model = make(**{"llm.tune": "full"})
    calls = Calls(model)
    gradients(model, batch_of(model, workspace / "images"), EVERY_WAY)
    assert all(x.requires_grad for x in calls.prefixes)


def test_no_weight_of_a_frozen_llm_gets_a_gradient_and_no_graph_remembers_one(workspace: Path) -> None:
    model = make(**{"llm.tune": "frozen"})
    found = gradients(model, batch_of(model, workspace / "images"), EVERY_WAY)
    assert not any(name.startswith(("llm.", "vision.")) for name in found)
    assert {n.partition(".")[0] for n in found} == {"loss", "connector", "fusion", "head", "special_tokens"}
    # Of a linear layer that is not trained the product with its input is not kept: only its weight, which is there anyway.
    kept: list[Tensor] = []
    layer = next(m for m in model.llm.modules() if isinstance(m, torch.nn.Linear))
    x = torch.randn(7, layer.in_features, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):  # type: ignore[func-returns-value]
        layer(x * 1)
    assert all(t.shape[0] != 7 for t in kept)


def test_our_own_words_in_a_start_are_trained(workspace: Path) -> None:
    """Rows that show the same picture would, but pictures never count as common; a word of ours does."""
    ids = torch.tensor([[5, -2, 6, 7, 8], [5, -2, 6, 9, 8]])
    assert common_prefix_length(ids, torch.tensor([[4], [4]])) == 3
    assert common_prefix_length(ids, torch.tensor([[4, 1], [4, 4]])) == 1  # a state that is asked for is read
    ids[:, 1] = IMG
    assert common_prefix_length(ids, torch.tensor([[4], [4]])) == 1
    assert common_prefix_length(ids[:1], torch.tensor([[4]])) == 1


def test_groups_hold_rows_of_like_length_up_to_so_many_tokens() -> None:
    assert group_sizes([2, 3, 3, 10, 10, 40], 20, 9) == [3, 2, 1]
    assert group_sizes([2, 3, 3, 10], 20, 2) == [2, 2]
    assert sum(group_sizes(list(range(1, 100)), 256, 99)) == 99


@pytest.mark.parametrize("lengths", [[], [50], [2, 3, 3, 10, 10, 40], [1, 1, 2, 8, 8, 9, 9, 30], [5] * 9])
def test_rows_are_split_where_padding_costs_more_than_another_pass(lengths: list[int]) -> None:
    def cost(sizes: list[int]) -> int:
        ends = list(accumulate(sizes))
        return sum(size * lengths[end - 1] + 12 for size, end in zip(sizes, ends, strict=True))

    def splits(count: int) -> Iterator[list[int]]:
        if not count:
            yield []
        for last in range(1, count + 1):
            for rest in splits(count - last):
                longest = lengths[count - 1]
                if last == 1 or last * longest <= 40:
                    yield [*rest, last]

    found = cheapest_groups(lengths, 40, 12)
    assert sum(found) == len(lengths)
    assert cost(found) == min(map(cost, splits(len(lengths))))


def test_groups_are_no_wider_than_they_need_to_be(workspace: Path) -> None:
    model = make("text_only", **{"llm.tune": "full"})
    inputs = batch_of(model, workspace / "images", Pairs([("t0", "t1"), ("t2", "t3"), ("p1", "p2")]))
    batch = inputs["batch"]
    calls = Calls(model)
    whole = gradients(model, inputs, NO_OPTIMIZATION)
    assert calls.shapes == [tuple(batch.ids.shape)]
    calls.shapes.clear()
    assert_same(whole, gradients(model, inputs, ExecutionOptions(share_prefix=False, max_tokens=200)))
    assert sum(rows for rows, _ in calls.shapes) == len(batch.ids)
    assert len(calls.shapes) > 1
    assert all(rows * wide <= 200 or rows == 1 for rows, wide in calls.shapes)
    assert {wide for _, wide in calls.shapes} <= {int(n) + 1 for n in batch.pool_pos}


@pytest.mark.parametrize("llm", ["gpt2:tiny", "bloom:tiny", "gemma:tiny-3", "mamba:tiny", "lfm2:tiny"])
def test_vectors_are_the_same_in_every_way(llm: str, workspace: Path) -> None:
    """Learned positions, ALiBi, sliding windows; and models whose memory is more than keys and values."""
    model = make(llm=llm)
    options: dict[str, Any] = {"images": workspace / "images", "precision": "fp32"}
    vectors = []
    for model.execution_options in (NO_OPTIMIZATION, EVERY_WAY):
        vectors.append(encode(model, ITEMS.items, **options).vectors)
    np.testing.assert_allclose(*vectors, atol=2e-6)
    assert model.llm.supports_prefix_cache == (llm not in ("mamba:tiny", "lfm2:tiny"))
