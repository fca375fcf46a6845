"""Prompts, text rules, token layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from n2kit.data.items import Item
from n2kit.errors import BadInput
from n2kit.modeling.prompts import IMG, IMG_EMB, PromptBuilder, split_topics
from n2kit.recipe.prompt_templates import TEMPLATES, load_template
from n2kit.recipe.settings import Prompt
from n2kit.recipe.variants import SPECS

Q = 3


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import LlamaConfig

    from n2kit_hf.tiny import byte_tokenizer

    return byte_tokenizer(LlamaConfig(vocab_size=512))


def prompt_builder(tokenizer: Any, variant: str = "notellm2", **settings: Any) -> PromptBuilder:
    return PromptBuilder(tokenizer, SPECS[variant], Prompt(**{"template": "en"} | settings), Q)


def text_of(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode([i for i in ids if i >= 0]))


def test_topics_leave_the_content_by_the_reference_rules() -> None:
    text, topics = split_topics("好吃#火锅[话题]#今天#火锅#真#一个超过十六个字符的非常长的话题标签啊#完")
    assert topics == ["火锅"]
    assert "火锅" not in text
    assert "[话题]" not in text
    assert "一个超过十六个字符的非常长的话题标签啊" in text
    assert split_topics("#a# b #a#") == ("b", ["a"])
    sixteen = "#" + "x" * 14 + "#"
    assert split_topics(sixteen) == ("", ["x" * 14])
    assert split_topics("#" + "x" * 15 + "#")[1] == []


def test_chinese_reference_prompt(tokenizer: Any) -> None:
    item = Item("1", title="标" * 30, topics=tuple(f"t{n}" for n in range(12)), content="一\n二" + "三" * 90)
    text = prompt_builder(tokenizer, template="zh", body_tokens=2000).render(item, image=True)
    assert text.startswith('笔记：{"图片":"<IMG>"}，压缩为一个词：“<IMG_EMB>”。笔记：{"标题":"' + "标" * 20 + '"')
    assert text.endswith("，压缩为一个词：“")
    assert '"话题":"t0，t1，t2，t3，t4，t5，t6，t7，t8，t9"' in text
    assert '"内容":"一。二' + "三" * 77 + '"' in text


@pytest.mark.parametrize("template", [name for name, t in TEMPLATES.items() if not t.special_tokens])
def test_positions_under_micl(tokenizer: Any, template: str) -> None:
    row = prompt_builder(tokenizer, template=template, body_tokens=400)(Item("1", title="hello"), image=True)
    assert row.ids.count(IMG) == Q
    assert row.ids.count(IMG_EMB) == 1
    assert row.ids[row.visual_pool_pos + 1] == IMG_EMB
    assert row.pool_pos == len(row.ids) - 1


def test_a_row_that_has_no_room_for_the_template_s_words_is_named(tokenizer: Any) -> None:
    """Raising body_tokens would change nothing: the row of the language model is what is short."""
    prompt = Prompt(template="en", body_tokens=400)
    with pytest.raises(BadInput, match="of 200 tokens, has room for [0-9]+ beside the 190 of an image") as found:
        PromptBuilder(tokenizer, SPECS["basic"], prompt, 190, row_tokens=200)
    assert "body_tokens" not in f"{found.value.message} {found.value.hint}"
    with pytest.raises(BadInput, match="more than body_tokens 8"):
        prompt_builder(tokenizer, body_tokens=8)


@pytest.mark.parametrize("variant", SPECS)
@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("title", ["hello", ""])
def test_each_item_gets_the_prompt_of_what_it_has(tokenizer: Any, variant: str, image: bool, title: str) -> None:
    row = prompt_builder(tokenizer, variant)(Item("1", title=title), image=image)
    early = image and SPECS[variant].early
    assert row.has_image == early
    assert (IMG in row.ids) == early
    both = early and bool(title) and SPECS[variant].text
    assert (row.visual_pool_pos >= 0) == (both and SPECS[variant].micl)
    assert ("hello" in text_of(tokenizer, row.ids)) == (
        (bool(title) and SPECS[variant].text) or (bool(title) and not early)
    )


def test_user_text_never_becomes_a_special_word(tokenizer: Any) -> None:
    item = Item("1", title="<IMG> <IMG_EMB> <TEXT_EMB>")
    row = prompt_builder(tokenizer)(item, image=True)
    assert row.ids.count(IMG) == Q
    assert row.ids.count(IMG_EMB) == 1
    assert "<IMG> <IMG_EMB> <TEXT_EMB>" in text_of(tokenizer, row.ids)


def test_template_fields_in_user_text_are_text(tokenizer: Any) -> None:
    row = prompt_builder(tokenizer)(Item("1", title="{content}", content="secret"), image=False)
    text = text_of(tokenizer, row.ids)
    assert "{content}" in text
    assert text.count("secret") == 1


@pytest.mark.parametrize("template", [name for name, t in TEMPLATES.items() if not t.special_tokens])
def test_fields_are_cut_and_never_the_end(tokenizer: Any, template: str) -> None:
    made = prompt_builder(tokenizer, template=template, body_tokens=140, title_chars=1000, content_chars=1000)
    long = Item("1", title="title " * 50, topics=tuple(f"topic{n}" for n in range(10)), content="content 内容 " * 200)
    row = made(long, image=True)
    suffix = made._tokens(made.template.suffix)
    assert row.ids[len(row.ids) - len(suffix) :] == suffix
    assert len(row.ids) <= len(made.start) + 140 + (Q - 1) + len(suffix)
    assert len(row.ids) > 120  # and what room there is gets used
    assert row.visual_pool_pos >= 0


def test_own_template(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "basic: 'P <IMG> {title}'\nmicl: 'P <IMG> = <IMG_EMB>. {title}'\ntext: '{title}'\nimage: '<IMG>'\nsuffix: ' in a word: \"'\n"
    )
    made = prompt_builder(tokenizer, "basic", template=str(file))
    assert made.render(Item("1", title="cup"), image=True) == 'P <IMG> cup in a word: "'


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("micl: 'no image {title} <IMG_EMB>'", "micl needs <IMG> exactly once"),
        ("micl: '<IMG_EMB> <IMG> {title}'", "<IMG_EMB> before <IMG>"),
        ("text: 'nothing'", "text has no field"),
        ("suffix: ''", "suffix is empty"),
        ("extra: 1", "unknown keys extra"),
    ],
)
def test_bad_templates_say_what_is_wrong(tmp_path: Path, change: str, complaint: str) -> None:
    lines = {
        "basic": "'<IMG> {title}'",
        "micl": "'<IMG> <IMG_EMB> {title}'",
        "text": "'{title}'",
        "image": "'<IMG>'",
        "suffix": "'x'",
    }
    key, _, value = change.partition(": ")
    lines[key] = value
    file = tmp_path / "bad.yaml"
    file.write_text("".join(f"{k}: {v}\n" for k, v in lines.items()))
    with pytest.raises(BadInput, match=complaint):
        load_template(str(file))


def test_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(BadInput, match="no prompt template 'fr'") as caught:
        load_template("fr")
    assert "zh" in (caught.value.hint or "")
