"""The text of prompts: built-in templates, and users' own from YAML files (docs/prompts.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from n2kit.errors import BadInput
from n2kit.utils.yaml_files import read_yaml

AUTO = "auto"  # stands for the one that `template_for` names
SMALL = 1_000_000_000  # parameters
FIELDS = re.compile(r"\{(title|topics|content|category)\}")


@dataclass(frozen=True)
class Template:
    """A prompt's body by kind, the suffix of all kinds, and the rules for writing fields into them.

    then_image: the image behind the text's compressed word, in variant joined_whitened; begins by closing the suffix's quote.
    Empty: `image` stands there.
    The last three are for losses that generate: what stands behind the compressed word and asks for the category, or for
    `{count}` topics, and how the answer to it is written. They begin by closing the suffix's quote. Empty: not to be asked.
    """

    basic: str
    micl: str
    text: str
    image: str
    suffix: str
    then_image: str = ""
    topic_separator: str = ", "
    newline: str = " "
    title_chars: int = 80
    content_chars: int = 320
    topics: int = 10
    category_task: str = ""
    topics_task: str = ""
    answer: str = ""


TEMPLATES: dict[str, Template] = {
    # The reference implementation's wording and limits.
    "zh": Template(
        basic='笔记：{"图片":"<IMG>","标题":"{title}","话题":"{topics}","内容":"{content}"}',
        micl='笔记：{"图片":"<IMG>"}，压缩为一个词：“<IMG_EMB>”。笔记：{"标题":"{title}","话题":"{topics}","内容":"{content}"}',
        text='笔记：{"标题":"{title}","话题":"{topics}","内容":"{content}"}',
        image='笔记：{"图片":"<IMG>","标题":"","话题":"","内容":""}',
        suffix="，压缩为一个词：“",
        then_image='”。笔记：{"图片":"<IMG>"}',
        topic_separator="，",
        newline="。",
        title_chars=20,
        content_chars=80,
        category_task="”。生成笔记类目：",
        topics_task="”。生成笔记{count}个话题：",
        answer="{answer}。",
    ),
    # The paper's figures. An English character says about a quarter of what a Chinese one does: limits four times as wide.
    "en": Template(
        basic=(
            "Extract the note information in json format, compress it into one word for recommendation. "
            'Note: {"image":"<IMG>","title":"{title}","topic":"{topics}","content":"{content}"}.'
        ),
        micl=(
            "Extract the note information in json format, compress it into one word for recommendation. "
            'Note: {"image":"<IMG>"}. The compression word is:"<IMG_EMB>". '
            'Note: {"title":"{title}","topic":"{topics}","content":"{content}"}.'
        ),
        text=(
            "Extract the note information in json format, compress it into one word for recommendation. "
            'Note: {"title":"{title}","topic":"{topics}","content":"{content}"}.'
        ),
        image=(
            "Extract the note information in json format, compress it into one word for recommendation. "
            'Note: {"image":"<IMG>","title":"","topic":"","content":""}.'
        ),
        suffix=' The compression word is:"',
        then_image='". Note: {"image":"<IMG>"}.',
        category_task='". The category of the note is:',
        topics_task='". The {count} topics of the note are:',
        answer=" {answer}.",
    ),
    # A third of the tokens, for short texts and slow machines.
    "compact": Template(
        basic='Note: "<IMG>" {title} {topics} {content}.',
        micl='Note: "<IMG>". One word: "<IMG_EMB>". Note: {title} {topics} {content}.',
        text="Note: {title} {topics} {content}.",
        image='Note: "<IMG>".',
        suffix=' One word: "',
        then_image='". Note: "<IMG>".',
        category_task='". Category:',
        topics_task='". {count} topics:',
        answer=" {answer}.",
    ),
}


def template_for(layers: int, width: int, vocab: int) -> str:
    """Name the built-in template for a language model of this size: a small one loses by a long instruction."""
    parameters = 12 * layers * width**2 + vocab * width  # a transformer's, nearly; known before its weights are there
    return "compact" if parameters < SMALL else "en"


def load_template(name: str) -> Template:
    """Return a built-in template by name, or read a user's YAML file with the keys of `Template`.

    Raises:
        BadInput: unknown name, or a file whose prompts lack a placeholder that they need.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise BadInput(f"no prompt template {name!r}", f"built in: {', '.join(TEMPLATES)}; auto; or give a YAML file")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise BadInput(f"{path}: expected the keys basic, micl, text, image, suffix", "see docs/prompts.md")
    unknown = set(content) - set(Template.__dataclass_fields__)
    if unknown:
        raise BadInput(
            f"{path}: unknown keys {', '.join(sorted(map(str, unknown)))}",
            f"known: {', '.join(Template.__dataclass_fields__)}",
        )
    try:
        template = Template(**content)
    except TypeError as error:
        raise BadInput(
            f"{path}: {str(error).split('() ')[-1]}", "a template has basic, micl, text, image, suffix"
        ) from None
    _validate(template, path)
    return template


def _validate(template: Template, path: Path) -> None:
    for name, value in vars(template).items():
        number = name in ("title_chars", "content_chars", "topics")
        if number and not (isinstance(value, int) and value >= 0):
            raise BadInput(f"{path}: {name} must be a whole number from 0", "it is what a field is cut to")
        if not number and not isinstance(value, str):
            raise BadInput(f"{path}: {name} must be a text", "quote it")
    for kind in ("basic", "micl", "text", "image"):
        if unknown := set(re.findall(r"\{(\w+)\}", getattr(template, kind))) - {
            "title",
            "topics",
            "content",
            "category",
        }:
            known = "{title}, {topics}, {content}, {category}"
            raise BadInput(f"{path}: {kind} has an unknown field {{{unknown.pop()}}}", f"fields: {known}")
    for kind, word in (
        ("text", "<IMG>"),
        ("text", "<IMG_EMB>"),
        ("basic", "<IMG_EMB>"),
        ("image", "<IMG_EMB>"),
        ("then_image", "<IMG_EMB>"),
        ("suffix", "<IMG"),
    ):
        if word in getattr(template, kind):
            raise BadInput(f"{path}: {kind} must not have {word}", "see docs/prompts.md")
    needs = {"basic": ["<IMG>"], "micl": ["<IMG>", "<IMG_EMB>"], "text": [], "image": ["<IMG>"]}
    needs |= {"then_image": ["<IMG>"]} if template.then_image else {}
    for kind, words in needs.items():
        body = getattr(template, kind)
        for word in words:
            if body.count(word) != 1:
                raise BadInput(f"{path}: {kind} needs {word} exactly once", f"it has it {body.count(word)} times")
        if kind == "micl" and body.index("<IMG>") > body.index("<IMG_EMB>"):
            raise BadInput(f"{path}: micl has <IMG_EMB> before <IMG>", "the image is read before its word is given")
        if kind in ("basic", "micl", "text") and not FIELDS.search(body):
            raise BadInput(f"{path}: {kind} has no field", "write {title}, {topics}, {content} or {category} into it")
    if not template.suffix:
        raise BadInput(f"{path}: suffix is empty", "end the prompt with an open quote")
    for name, mark in (("category_task", ""), ("topics_task", "{count}"), ("answer", "{answer}")):
        text = getattr(template, name)
        if text and (mark not in text or "<IMG" in text or "<TEXT_EMB>" in text):
            raise BadInput(
                f"{path}: {name} needs {mark or 'a text'} and no <IMG>, <IMG_EMB> or <TEXT_EMB>", "see docs/prompts.md"
            )
