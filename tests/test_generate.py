"""`n2kit generate`: what was taught is said, in the item's own prompt; and who cannot says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import n2kit
from n2kit import Item
from n2kit.bundle import io as bundle
from n2kit.contract.interfaces import LLM
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.embed.generate import Answer, _answer, generate
from n2kit.errors import BadInput, Mismatch
from n2kit.modeling.model import Model
from n2kit.modeling.prompts import Task
from n2kit.recipe.settings import resolve
from n2kit.train import train

ITEMS = Items([
    Item(f"i{n}", f"noto_{n + 1}.png", f"{word} {n}", ("big", word), "", kind)
    for n, (word, kind) in enumerate([("oak chair", "home"), ("cup", "kitchen"), ("sofa", "home"), ("pan", "kitchen")] * 2)
])  # fmt: skip
PAIRS = Pairs([("i0", "i4"), ("i1", "i5"), ("i2", "i6"), ("i3", "i7")])


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has been asked for categories until it knows them."""
    folder = tmp_path_factory.mktemp("taught")
    settings = {
        "head.width": 16, "prompt.template": "compact", "llm.tune": "full", "loss.generation_weight": 20.0,
        "train.topic_share": 0.0,
    }  # fmt: skip
    n2kit.build("qwen:tiny", loss="notellm", variant="text_only", settings=settings).save(folder / "new")
    given = {"train.max_steps": 60, "train.batch_size": 4, "train.lr": 1e-2, "train.precision": "fp32"}
    recipe = resolve(given, base=bundle.read_recipe(folder / "new"), env={}).recipe
    return Path(train(folder / "new", ITEMS, PAIRS, recipe, folder / "run").bundle)


def said(model: Model, task: Task, **options: Any) -> list[Answer]:
    return list(generate(model, ITEMS.items, task, precision="fp32", **{"max_new_tokens": 8} | options))


@pytest.mark.parametrize("beams", [1, 3])
def test_it_says_what_it_was_taught(taught: Path, beams: int) -> None:
    """Its tokenizer has no end of text: the mark that the template ends an answer with does."""
    answers = said(bundle.load(taught), Task("category"), num_beams=beams)
    assert [(a.id, a.text) for a in answers] == [(i.id, i.category) for i in ITEMS.items]


def test_a_llm_without_generation_of_its_own_says_the_same(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bundle.load(taught)
    fast = said(model, Task("category"))
    monkeypatch.setattr(type(model.llm), "generate", LLM.generate)
    assert said(model, Task("category")) == fast
    with pytest.raises(Mismatch, match="it has no beams"):
        said(model, Task("category"), num_beams=2)


def test_the_prompt_has_the_question_and_no_answer(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = bundle.load(taught), []

    def generate(x: torch.Tensor, *_: Any) -> list[int]:
        rows.append(x)
        return []

    monkeypatch.setattr(model.llm, "generate", generate)
    assert [a.topics for a in said(model, Task("topics", 2))] == [()] * len(ITEMS)
    row = model.prompt_builder(ITEMS["i0"], image=False, task=Task("topics", 2), answered=False)
    ids = torch.tensor([row.ids])
    torch.testing.assert_close(rows[0], model.special_tokens.fill(model.llm.embed(ids.clamp_min(0)), ids))
    text = model.llm.tokenizer.decode([i for i in row.ids if i >= 0])
    assert text.endswith('big, oak chair . One word: "". 2 topics:')


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        (" big, red, big.", True, ("big", "red")),
        (" big, 2.5 mm, red.", True, ("big", "2.5 mm")),
        (" big, red. And then", False, ("big", "red")),
        (" big", False, ("big",)),
        ("", True, ()),
    ],
)
def test_topics_out_of_a_text(taught: Path, text: str, ended: bool, expected: tuple[str, ...]) -> None:
    model = bundle.load(taught)
    ids = model.llm.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert _answer(model, ITEMS["i0"], Task("topics", 2), ids, ended=ended).topics == expected


def test_beside_pictures(workspace: Path) -> None:
    """The row has the visual tokens; another picture is another row."""
    model = n2kit.build(
        "qwen:tiny", "siglip:tiny", connector="mlp:4", loss="notellm",
        settings={"head.width": 16, "prompt.template": "compact"},
    )  # fmt: skip
    rows: list[torch.Tensor] = []
    model.llm.generate = lambda x, *_: rows.append(x) or []  # type: ignore[method-assign, assignment, func-returns-value]
    twins = [Item("a", "noto_1.png", "x"), Item("b", "noto_9.png", "x"), Item("c", "", "x")]
    list(generate(model, twins, images=workspace / "images", precision="fp32"))
    assert rows[0].shape == rows[1].shape
    assert not torch.equal(rows[0], rows[1])
    assert rows[2].shape[1] < rows[0].shape[1]
    skipped: dict[str, str] = {}
    bad = [Item("d", "nowhere.png", "x"), Item("e", "", "y")]
    told = generate(model, bad, images=workspace / "images", on_bad_image="skip", precision="fp32", skipped=skipped)
    assert [a.id for a in told] == ["e"]
    assert "nowhere.png" in skipped["d"]
    with pytest.raises(BadInput, match=r"nowhere\.png"):
        list(generate(model, bad, images=workspace / "images", precision="fp32"))


def test_who_cannot(taught: Path, tiny_bundle: Path) -> None:
    with pytest.raises(Mismatch, match="built with loss notellm2, which generates nothing") as caught:
        list(generate(bundle.load(tiny_bundle), ITEMS.items))
    assert "--loss notellm" in (caught.value.hint or "")
    with pytest.raises(Mismatch, match="the answer up to 5000, and the llm reads 2048") as caught:
        said(bundle.load(taught), Task("category"), max_new_tokens=5000)
    assert "--max-new-tokens" in (caught.value.hint or "")


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps({"id": i.id, "title": i.title}) + "\n" for i in ITEMS.items)
    )
    return tmp_path


def test_the_command(shop: Path, taught: Path, cli: Any) -> None:
    arguments = ["generate", taught, "--items", "items.jsonl", "--max-new-tokens", "8", "--precision", "fp32"]
    result = cli(*arguments, "--task", "category", "--limit", "2", "--json")
    assert result.code == 0, result.err
    facts = json.loads(result.out)
    assert [i["id"] for i in facts["items"]] == ["i0", "i1"]
    assert all(i["category"] for i in facts["items"])
    assert (facts["task"], facts["skipped"]) == ("category", {})
    plain = cli(*arguments, "--id", "i3", "--id", "i0", "--count", "2")
    assert [line.split("|")[1].strip() for line in plain.out.splitlines()] == ["id", "---", "i3", "i0"]
    rows = (shop / "items.jsonl").read_text().splitlines()
    (shop / "double.jsonl").write_text("\n".join([*rows, rows[0]]) + "\n")
    written = cli(*arguments[:3], "double.jsonl", *arguments[4:], "--limit", "1", "-o", "topics.jsonl", "--lenient")
    assert written.code == 0, written.err
    assert json.loads((shop / "topics.jsonl").read_text())["id"] == "i0"
    assert "duplicate id 'i0'" in (shop / "topics.jsonl.skipped.csv").read_text()
    assert cli(*arguments, "--limit", "1", "-o", "topics.jsonl").code == 2
    assert "topics" in plain.out.splitlines()[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--id", "i33"], "no item 'i33' in items.jsonl"),
        (["--id", "i3", "--limit", "2"], "give either --id or --limit"),
        (["--task", "title"], "task"),
        (["--max-new-tokens", "0"], "max-new-tokens"),
    ],
)
def test_bad_input_is_named(shop: Path, taught: Path, cli: Any, options: list[str], complaint: str) -> None:
    result = cli("generate", taught, "--items", "items.jsonl", *options)
    assert result.code == 2
    assert complaint in result.err


def test_a_bundle_that_generates_nothing(shop: Path, tiny_bundle: Path, cli: Any) -> None:
    result = cli("generate", tiny_bundle, "--items", "items.jsonl", "--allow-no-images")
    assert (result.code, result.out) == (2, "")
    assert "error: the model was built with loss notellm2, which generates nothing" in result.err


def test_a_category_has_no_count(cli: Any, tmp_path: Path) -> None:
    done = cli("generate", tmp_path, "--items", tmp_path / "items.csv", "--task", "category", "--count", "3")
    assert (done.code, done.err.splitlines()[0]) == (
        2,
        "error: --count counts topics, and --task category was asked for",
    )
