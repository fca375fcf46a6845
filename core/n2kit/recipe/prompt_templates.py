"""The text of prompts: built-in templates, those of plug-ins, and users' own from YAML files (docs/prompts.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from n2kit.errors import BadInput
from n2kit.plugins.registries import one, registered
from n2kit.utils.yaml_files import read_yaml

AUTO = "auto"  # stands for the one that `template_for` names
SMALL = 1_000_000_000  # parameters
PLAIN = "plain"  # the text alone; `plain:WORDS` puts words before it
LONG = 32_000  # characters: about the 8,192 tokens that the longest text embedders read; tokens are counted behind that
ITEM_FIELDS = ("title", "topics", "content", "category")
FIELD_NAMES = (
    *ITEM_FIELDS,
    "text",
)  # {text}: those of title, topics and content that an item has, one space between them
FIELDS = re.compile(r"\{(" + "|".join(FIELD_NAMES) + r")\}")


@dataclass(frozen=True)
class Template:
    """A prompt's body by kind, the suffix of all kinds, and the rules for writing fields into them.

    then_image: the image behind the text's compressed word, in variant joined_whitened; begins by closing the suffix's quote.
    Empty: `image` stands there.
    The last three are for losses that generate: what stands behind the compressed word and asks for the category, or for
    `{count}` topics, and how the answer to it is written. They begin by closing the suffix's quote. Empty: not to be asked.
    special_tokens: in the template's own words the tokenizer's special tokens are such, as in a chat; in an item's they are text.
    end_tokens: a row ends with the tokens that the tokenizer puts behind every text (SEP, EOS).
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
    special_tokens: bool = False
    end_tokens: bool = False


def _embedder(before: str, suffix: str = "", image: str = "<IMG>", *, chat: bool = False) -> Template:
    """Make the template of a model that reads an image and a text as they are, between fixed words."""
    return Template(
        basic=f"{before}{image}{{text}}", micl=f"{before}{image}<IMG_EMB>{{text}}", text=f"{before}{{text}}",
        image=f"{before}{image}", suffix=suffix, then_image=image, topic_separator=" ", title_chars=400 if chat else LONG,
        content_chars=2000 if chat else LONG, special_tokens=chat, end_tokens=True,
    )  # fmt: skip


# For models that were trained to answer and not to embed: the prompt of E5-V (arXiv 2407.12580) in a chat's turn.
_ONE_WORD = "\nSummary of the above in one word:"


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
    # What text embedders were trained on: the text, and what their tokenizer puts around it.
    PLAIN: _embedder(""),
    # Qwen3-VL-Embedding's chat, with the instruction that its authors' code has by default (arXiv 2601.04720).
    "qwen3-vl-embedding": _embedder(
        "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        chat=True,
    ),
    # The chats of multimodal models, laid out as their processors in transformers do it for one tile.
    "qwen-vl-chat": _embedder("<|im_start|>user\n", f"{_ONE_WORD}<|im_end|>\n<|im_start|>assistant\n", chat=True),
    "internvl-chat": _embedder(
        "<|im_start|>user\n", f"{_ONE_WORD}<|im_end|>\n<|im_start|>assistant\n", "<img><IMG></img>\n", chat=True
    ),
    "gemma-3-chat": _embedder(
        "<start_of_turn>user\n", f"{_ONE_WORD}<end_of_turn>\n<start_of_turn>model\n", "\n\n<IMG>\n\n", chat=True
    ),
    "smolvlm-chat": replace(
        _embedder(
            "<|im_start|>User:", f"{_ONE_WORD}<end_of_utterance>\nAssistant:",
            "<fake_token_around_image><global-img><IMG><fake_token_around_image>", chat=True,
        ),
        text="<|im_start|>User: {text}",
    ),
}  # fmt: skip


def template_for(layers: int, width: int, vocab: int) -> str:
    """Name the built-in template for a language model of this size: a small one loses by a long instruction."""
    parameters = 12 * layers * width**2 + vocab * width  # a transformer's, nearly; known before its weights are there
    return "compact" if parameters < SMALL else "en"


def load_template(name: str) -> Template:
    """Return a built-in template by name (`plain:WORDS`: the text behind those words), a plug-in's, or a YAML file's.

    Raises:
        BadInput: unknown name, or a file whose prompts lack a placeholder that they need. Unavailable: a plug-in's that is no good.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if name.startswith(f"{PLAIN}:"):
        return _embedder(_without_marks(name.removeprefix(f"{PLAIN}:"), name))
    path = Path(name)
    if path.is_file():
        return _template(read_yaml(path), name)
    there = registered("prompt template")
    if name not in there:
        known = f"built in: {', '.join(TEMPLATES)}, {PLAIN}:WORDS; auto; "
        known += "".join(f"of a plug-in: {other}; " for other in there)
        raise BadInput(f"no prompt template {name!r}", f"{known}or give a YAML file")
    entry = one(there[name], f"prompt template {name!r}")
    try:
        return _template(entry.load(), name)
    except BadInput as problem:
        raise entry.fault(problem.message.removeprefix(f"{name}: ")) from problem


def _template(content: Any, where: str) -> Template:
    """Make a template of a mapping.

    Raises:
        BadInput: it is none, or prompts that lack a placeholder.
    """
    if not isinstance(content, Mapping):
        raise BadInput(f"{where}: expected the keys basic, micl, text, image, suffix", "see docs/prompts.md")
    unknown = set(content) - set(Template.__dataclass_fields__)
    if unknown:
        raise BadInput(
            f"{where}: unknown keys {', '.join(sorted(map(str, unknown)))}",
            f"known: {', '.join(Template.__dataclass_fields__)}",
        )
    try:
        template = Template(**content)
    except TypeError as error:
        raise BadInput(
            f"{where}: {str(error).split('() ')[-1]}", "a template has basic, micl, text, image, suffix"
        ) from None
    _validate(template, where)
    return template


def _without_marks(words: str, name: str) -> str:
    """Return the words of `plain:WORDS`, which stand before every text.

    Raises:
        BadInput: a field or a special token of n2kit is among them.
    """
    if FIELDS.search(words) or re.search("<(IMG|IMG_EMB|TEXT_EMB)>", words):
        raise BadInput(f"prompt template {name!r} has a placeholder", "words alone; placeholders need a YAML file")
    return words


def _validate(template: Template, path: str) -> None:
    for name, value in vars(template).items():
        number, switch = name in ("title_chars", "content_chars", "topics"), name in ("special_tokens", "end_tokens")
        if number and not (isinstance(value, int) and value >= 0):
            raise BadInput(f"{path}: {name} must be a whole number from 0", "it is what a field is cut to")
        if switch and not isinstance(value, bool):
            raise BadInput(f"{path}: {name} must be true or false", "see docs/prompts.md")
        if not (number or switch or isinstance(value, str)):
            raise BadInput(f"{path}: {name} must be a text", "quote it")
    for kind in ("basic", "micl", "text", "image"):
        if unknown := set(re.findall(r"\{(\w+)\}", getattr(template, kind))) - set(FIELD_NAMES):
            known = ", ".join(f"{{{name}}}" for name in FIELD_NAMES)
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
            raise BadInput(
                f"{path}: {kind} has no field", "write {title}, {topics}, {content}, {category} or {text} into it"
            )
    if not (template.suffix or template.end_tokens):
        raise BadInput(f"{path}: suffix is empty", "end the prompt with an open quote, or set end_tokens: true")
    for name, mark in (("category_task", ""), ("topics_task", "{count}"), ("answer", "{answer}")):
        text = getattr(template, name)
        if text and (mark not in text or "<IMG" in text or "<TEXT_EMB>" in text):
            raise BadInput(
                f"{path}: {name} needs {mark or 'a text'} and no <IMG>, <IMG_EMB> or <TEXT_EMB>", "see docs/prompts.md"
            )
