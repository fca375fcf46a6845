"""The NoteLLM objective: what items are asked for behind their vector, what it costs, and that nothing of it enters the vector."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import n2kit
from n2kit import Item
from n2kit.bundle import io as bundle
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import BadInput, Mismatch
from n2kit.inputs.reader import Reader
from n2kit.modeling.model import Model
from n2kit.modeling.prompts import ANSWER_TOKENS, TEXT_EMB, PromptBuilder, Task
from n2kit.planning.planner import make_plan
from n2kit.recipe.settings import Prompt, resolve
from n2kit.recipe.variants import SPECS
from n2kit.train import train
from n2kit.train.answer_tasks import AnswerTasks
from n2kit.train.epoch_rng import EpochRng
from n2kit.train.pairs import PairCollator
from n2kit.train.step import TrainStep
from steps import assert_same, by_one_and_by_two, gradients, weights

CHAIR = Item("1", title="oak chair", topics=("wood", "seat", "home"), content="solid #oak#", category="furniture")
END = 3  # the end of text of the tokenizer below


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import LlamaConfig

    from n2kit_hf.tiny import byte_tokenizer

    made = byte_tokenizer(LlamaConfig(vocab_size=512))
    made.eos_token = made.convert_ids_to_tokens(END)
    return made


def prompt_builder(tokenizer: Any, **settings: Any) -> PromptBuilder:
    return PromptBuilder(tokenizer, SPECS["text_only"], Prompt(**{"template": "en", "body_tokens": 400} | settings), 0)


def tail(tokenizer: Any, row: Any) -> tuple[str, str]:
    """Return what stands behind `<TEXT_EMB>`: the question, and the answer without its end of text."""
    assert row.ids[-1] == END
    question = row.ids[row.pool_pos + 2 : len(row.ids) - row.answer]
    return tokenizer.decode(question), tokenizer.decode(row.ids[len(row.ids) - row.answer : -1])


# --- the rows --------------------------------------------------------------------------------------------------------


def test_the_reference_s_wording(tokenizer: Any) -> None:
    made = prompt_builder(tokenizer, template="zh")
    assert made.suffix == made._tokens("，压缩为一个词：“")
    assert tail(tokenizer, made(CHAIR, image=False, task=Task("category"))) == ("”。生成笔记类目：", "furniture。")
    asked = made(CHAIR, image=False, task=Task("topics", 2, ("wood", "oak")))
    assert tail(tokenizer, asked) == ("”。生成笔记2个话题：", "wood，oak。")


@pytest.mark.parametrize("template", ["en", "compact"])
def test_english_wording(tokenizer: Any, template: str) -> None:
    question, answer = tail(
        tokenizer, prompt_builder(tokenizer, template=template)(CHAIR, image=False, task=Task("category"))
    )
    assert (question[:3], question[-1], answer) == ('". ', ":", " furniture.")


def test_up_to_the_word_a_row_is_the_one_that_is_embedded(tokenizer: Any) -> None:
    made = prompt_builder(tokenizer)
    plain, asked = made(CHAIR, image=False), made(CHAIR, image=False, task=Task("category"))
    assert asked.pool_pos == plain.pool_pos
    assert asked.ids[: asked.pool_pos + 1] == plain.ids
    assert asked.ids[asked.pool_pos + 1] == TEXT_EMB


def test_what_is_asked_for_is_not_in_the_prompt(tokenizer: Any, tmp_path: Path) -> None:
    made = prompt_builder(tokenizer)
    row = made(CHAIR, image=False, task=Task("topics", 2, ("seat", "oak")))
    prompt = tokenizer.decode(row.ids[: row.pool_pos + 1])
    assert '"topic":"wood, home"' in prompt
    assert "seat" not in prompt
    assert "oak," not in prompt
    file = tmp_path / "told.yaml"
    file.write_text(
        "basic: '<IMG> {category}'\nmicl: '<IMG> <IMG_EMB> {category}'\ntext: 'In {category}: {title}'\nimage: '<IMG>'\n"
        "suffix: ' \"'\ncategory_task: '\". In:'\ntopics_task: '\". {count}:'\nanswer: ' {answer}'\n"
    )
    told = prompt_builder(tokenizer, template=str(file))
    assert "furniture" in tokenizer.decode(told(CHAIR, image=False).ids)
    row = told(CHAIR, image=False, task=Task("category"))
    assert "furniture" not in tokenizer.decode(row.ids[: row.pool_pos + 1])


def test_a_long_answer_is_cut_and_still_ends(tokenizer: Any) -> None:
    item = Item("1", title="x", category="a very long category " * 20)
    row = prompt_builder(tokenizer)(item, image=False, task=Task("category"))
    assert row.answer == ANSWER_TOKENS + 1
    assert row.ids[-1] == END


def test_an_unanswered_row_ends_in_the_question(tokenizer: Any) -> None:
    row = prompt_builder(tokenizer)(CHAIR, image=False, task=Task("topics", 5), answered=False)
    assert row.answer == 0
    assert tokenizer.decode(row.ids[row.pool_pos + 2 :]) == '". The 5 topics of the note are:'


# --- who is asked for what -------------------------------------------------------------------------------------------


def tasks(tokenizer: Any, share: float = 0.4, most: int = 5, seed: int = 0) -> AnswerTasks:
    return AnswerTasks(prompt_builder(tokenizer), EpochRng(seed), share, most)


def test_two_in_five_are_asked_for_topics(tokenizer: Any) -> None:
    made = tasks(tokenizer)
    asked = [made(Item(f"item {n}", title="x", topics=("a", "b", "c"), category="d")) for n in range(2000)]
    kinds = Counter(task.kind for task in asked if task)
    assert 740 < kinds["topics"] < 860  # 800 ± 2.7 standard deviations
    assert kinds.total() == 2000
    counts = Counter(task.count for task in asked if task and task.kind == "topics")
    assert all(counts[n] > 200 for n in (1, 2, 3))
    assert all(task.count == len(set(task.target_topics)) for task in asked if task)
    assert {made(Item(str(n), title="x", topics=("a", "b", "c"), category="d")).count for n in range(50)} == {
        0,
        1,
        2,
        3,
    }  # type: ignore[union-attr]
    one = tasks(tokenizer, share=1.0, most=1)
    assert {one(CHAIR).count for _ in range(3)} == {1}  # type: ignore[union-attr]


def test_who_lacks_one_is_asked_for_the_other(tokenizer: Any) -> None:
    made = tasks(tokenizer)
    for n in range(30):
        assert made(Item(str(n), title="x", category="d")) == Task("category")
        only_topics = made(Item(str(n), title="x", topics=("a",)))
        assert only_topics == Task("topics", 1, ("a",))
        assert made(Item(str(n), title="x")) is None
        assert made(Item(str(n), topics=("a",))) is None  # nothing would be left to embed
        held = made(Item(str(n), topics=("a", "b", "c")))
        assert held is not None
        assert len(held.target_topics) < 3


def test_draws_depend_on_seed_epoch_and_item_alone(tokenizer: Any) -> None:
    items = [Item(f"item {n}", title="x", topics=("a", "b", "c"), category="d") for n in range(40)]
    first, again, other = tasks(tokenizer), tasks(tokenizer), tasks(tokenizer, seed=1)
    told = [first(i) for i in items]
    assert told == [again(i) for i in reversed(items)][::-1]
    assert told != [other(i) for i in items]
    again.rng.epoch = 1
    assert told != [again(i) for i in items]


# --- the step --------------------------------------------------------------------------------------------------------


def model(**settings: Any) -> Model:
    given = {"head.width": 16, "prompt.template": "compact", "llm.tune": "full"} | settings
    variant = given.pop("variant", "text_only")
    vision = None if variant == "text_only" else "siglip:tiny"
    made = n2kit.build("qwen:tiny", vision, loss="notellm", variant=variant, settings=given)
    made.prepare_for(torch.float32)
    return made.train()


@pytest.fixture(scope="module")
def catalogue() -> Items:
    """Items with both, with one, and with neither of category and topics; some with a picture."""
    made = []
    for n in range(10):
        topics = tuple(f"topic{m}" for m in range(n % 4))
        category = f"kind {n % 3}" if n % 5 else ""
        made.append(
            Item(f"i{n}", f"noto_{n + 1}.png" if n % 3 == 1 else "", f"thing {n}" + " or so" * n, topics, "", category)
        )
    return Items(made)


PAIRS = Pairs([("i0", "i1"), ("i2", "i3"), ("i4", "i5"), ("i6", "i7"), ("i8", "i9"), ("i0", "i7")])


def inputs_of(made: Model, items: Items, images: Path | None = None) -> dict[str, Any]:
    asked = AnswerTasks(made.prompt_builder, EpochRng(0), 0.4, 5)
    return PairCollator(items, PAIRS, Reader(made.prompt_builder, made.vision, images), tasks=asked)(list(PAIRS))


def test_only_answers_are_scored(catalogue: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    made, scored = model(), []
    logits = made.llm.logits
    monkeypatch.setattr(made.llm, "logits", lambda states: scored.append(len(states)) or logits(states))
    inputs = inputs_of(made, catalogue)
    out = TrainStep(made, torch.float32)(inputs["batch"], inputs["exclude"], inputs["item_index"])
    assert scored == [int(inputs["batch"].answers.sum())]
    assert 0 < scored[0] < inputs["batch"].ids.numel() / 3
    alpha = made.loss.config.generation_weight
    expected = (out["terms"]["multimodal"] + alpha * out["terms"]["generation"]) / (1 + alpha)
    torch.testing.assert_close(out["loss"].detach(), expected)


def test_the_cost_is_the_next_token_s_over_all_rows(catalogue: Items) -> None:
    """By the definition, one item after the other; an item of two pairs counts twice."""
    made = model().eval()
    inputs = inputs_of(made, catalogue)
    asked = AnswerTasks(made.prompt_builder, EpochRng(0), 0.4, 5)
    costs: list[Tensor] = []
    for item_id in inputs["ids"]:
        item = catalogue[item_id]
        row = made.prompt_builder(item, image=False, task=asked(item))
        ids = torch.tensor([row.ids])
        x = made.special_tokens.fill(made.llm.embed(ids.clamp_min(0)), ids)
        scores = made.llm.logits(made.llm(x)[0]).log_softmax(-1)
        costs += [-scores[at - 1, row.ids[at]] for at in range(len(row.ids) - row.answer, len(row.ids))]
    with torch.no_grad():
        out = TrainStep(made, torch.float32)(inputs["batch"], inputs["exclude"], inputs["item_index"])
    torch.testing.assert_close(out["terms"]["generation"], torch.stack(costs).mean().detach(), atol=1e-5, rtol=1e-5)


def test_answers_change_no_vector(catalogue: Items) -> None:
    made = model().eval()
    items = [Item(i.id, "", i.title, (), "", i.category) for i in catalogue.items]  # no topics: nothing is held out
    asked, _ = Reader(made.prompt_builder, None, None)(items, [Task("category") if i.category else None for i in items])
    plain, _ = Reader(made.prompt_builder, None, None)(items)
    assert asked is not None
    assert plain is not None
    with torch.no_grad():
        one, two = (made(batch).views["multimodal"] for batch in (asked, plain))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", ["text_only", "notellm2"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_give_the_loss_and_the_gradients_of_the_plain_step(
    variant: str, chunk: int, catalogue: Items, workspace: Path
) -> None:
    """Also beside pictures: the task stands behind any prompt."""
    made = model(variant=variant, **({"connector.tokens": 2} if variant == "notellm2" else {}))
    inputs = inputs_of(made, catalogue, workspace / "images")
    plain, cached = (gradients(TrainStep(made, torch.float32, n), inputs) for n in (None, chunk))
    assert_same(plain, cached)
    assert plain[1]["model.llm.lm_head.weight"].abs().max() > 0
    assert plain[1]["model.special_tokens.table.weight"][-TEXT_EMB - 1].abs().max() > 0


def test_a_step_that_asks_nothing(catalogue: Items) -> None:
    made = model()
    bare = Items([Item(i.id, "", i.title) for i in catalogue.items])
    inputs = inputs_of(made, bare)
    assert inputs["batch"].answers is None
    loss, found = gradients(TrainStep(made, torch.float32), inputs)
    assert loss.isfinite()
    assert "model.llm.lm_head.weight" not in found


# --- runs and bundles ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generation") / "bundle"
    model().save(folder)
    return folder


def run(built: Path, items: Items, folder: Path, **settings: Any) -> Any:
    given = {"train.batch_size": 2, "train.max_steps": 5, "train.save_steps": 2, "train.lr": 1e-3} | settings
    recipe = resolve({"train.precision": "fp32", **given}, base=bundle.read_recipe(built), env={}).recipe
    return train(built, items, PAIRS, recipe, folder)


def test_a_resumed_run_asks_what_an_unbroken_one_asks(built: Path, catalogue: Items, tmp_path: Path) -> None:
    """Broken off in the second epoch of three steps; the weights at the end are bit-equal."""
    import shutil

    whole = run(built, catalogue, tmp_path / "whole")
    run(built, catalogue, tmp_path / "broken")
    for name in ("bundle", "result.json", "checkpoints/checkpoint-5"):
        path = tmp_path / "broken" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    resumed = run(built, catalogue, tmp_path / "broken")
    assert resumed.resumed_from == 4
    one, two = weights(whole.bundle), weights(resumed.bundle)
    assert all(torch.equal(one[k], two[k]) for k in one)
    before = weights(built)
    changed = [k for k in one if not torch.equal(one[k], before[k])]
    assert any("lm_head" in k for k in changed)


@pytest.mark.slow
def test_two_processes_ask_what_one_asks(built: Path, catalogue: Items, tmp_path: Path, cli: Any) -> None:
    rows = [{"id": i.id, "title": i.title, "topics": list(i.topics), "category": i.category} for i in catalogue.items]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "pairs.csv").write_text("".join(f"{a},{b}\n" for a, b in PAIRS))
    arguments: list[str | Path] = [
        "train", built, "--items", tmp_path / "items.jsonl", "--pairs", tmp_path / "pairs.csv", "--max-steps", "3",
        "--batch-size", "2", "--lr", "1e-3", "--device", "cpu", "--set", "train.precision=fp32", "--set", "train.warmup=0",
        "--set", "train.log_steps=1",
    ]  # fmt: skip
    (one, two), steps = by_one_and_by_two(cli, arguments, tmp_path)
    assert max((one[k].float() - two[k].float()).abs().max() for k in one) < 1e-5
    for a, b in steps:
        assert a["generation"] == pytest.approx(b["generation"], rel=1e-5)


def test_a_bundle_keeps_the_head(built: Path, catalogue: Items) -> None:
    made, again = model(), bundle.load(built)
    states = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made.llm.logits(states), again.llm.logits(states), atol=0, rtol=0)
    assert [p for p, _ in again.llm.named_parameters() if "lm_head" in p] == ["lm_head.weight"]
    vectors = again.encode(catalogue.items[:3], precision="fp32")
    assert vectors.shape == (3, 16)


def test_without_such_a_loss_there_is_no_head(tiny_bundle: Path) -> None:
    llm = bundle.load(tiny_bundle).llm
    assert not any("lm_head" in name for name, _ in llm.named_parameters())
    with pytest.raises(Mismatch, match="no output head"):
        llm.logits(torch.zeros(1, 32))


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"llm": "bert:tiny"}, "llm bert:tiny reads both ways: the vector would see the answer"),
        ({"mllm": "llava:tiny"}, "mllm llava:tiny keeps no output head"),
    ],
)
def test_the_plan_refuses_who_cannot_answer(settings: dict[str, str], why: str) -> None:
    named = {"llm": "qwen:tiny", "variant": "text_only", "loss": "notellm"} | settings
    plan = make_plan(resolve(named, env={}).recipe)
    assert [why in r.message for r in plan.refusals] == [True]
    assert "--loss notellm2" in (plan.refusals[0].hint or "")


def test_the_plan_knows_longer_rows_and_wrapped_losses() -> None:
    def plan(**settings: Any) -> Any:
        given = {"llm": "qwen:tiny", "variant": "text_only", "llm.tune": "frozen"} | settings
        return make_plan(resolve(given, env={}).recipe)

    plain, asked = plan(), plan(loss="notellm")
    assert asked.longest == plain.longest + 24 + ANSWER_TOKENS
    assert any("16,384 parameters more" in note for note in asked.notes)
    assert any("train the word <TEXT_EMB> and nothing else" in note for note in asked.notes)
    assert plan(loss="matryoshka", **{"loss.of": "notellm"}).generates
    assert not plan(loss="matryoshka").generates


def test_a_template_without_tasks(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    lines = "basic: '<IMG> {title}'\nmicl: '<IMG> <IMG_EMB> {title}'\ntext: '{title}'\nimage: '<IMG>'\nsuffix: ' \"'\n"
    file.write_text(lines)
    named = {"llm": "qwen:tiny", "variant": "text_only", "loss": "notellm", "prompt.template": str(file)}
    (refusal,) = make_plan(resolve(named, env={}).recipe).refusals
    assert "has no category_task, topics_task and answer" in refusal.message
    for wrong, what in (
        ("topics_task: 'topics:'", r"topics_task needs \{count\}"),
        ("answer: 'x'", r"answer needs \{answer\}"),
    ):
        file.write_text(lines + wrong + "\n")
        with pytest.raises(BadInput, match=what):
            make_plan(resolve(named, env={}).recipe)
