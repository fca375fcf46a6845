"""Templates, text rules, token layout, compress positions (NoteLLM-2, section 4.2; reference text rules).

A prompt is a body and a suffix that ends in an open quote: the state at its last token is the item's compressed word. Only
the body is ever cut, and there only the item's own fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from n2kit.errors import BadInput
from n2kit.templates import FIELDS, Template, load_template
from n2kit.variants import VariantSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from n2kit.data.items import Item
    from n2kit.recipe import Prompt

# Ids of our own words. No tokenizer gives a negative id, so no text of a user can stand for one of them.
IMG, IMG_EMB, TEXT_EMB = -1, -2, -3
WORDS = {"<IMG>": IMG, "<IMG_EMB>": IMG_EMB, "<TEXT_EMB>": TEXT_EMB}
PAD = 0  # what fills a row on the right; causal attention never lets a real position see it

PromptKind = Literal["basic", "micl", "text", "image"]
_PIECES = re.compile("(" + "|".join(map(re.escape, WORDS)) + ")")
_TOPIC = re.compile(r"#(\w+)#")
TOPIC_MARK = "[话题]"
TOPIC_CHARS = 16  # longest `#topic#`, hashes included; a longer one stays text


def split_topics(content: str) -> tuple[str, list[str]]:
    """Take `#topic#` marks out of a content (reference rule): the text without them, and the topics in order."""
    content = content.replace(TOPIC_MARK, "")
    topics = [t for t in dict.fromkeys(_TOPIC.findall(content)) if len(t) + 2 <= TOPIC_CHARS]
    for topic in topics:
        content = content.replace(f"#{topic}#", "")
    return content.strip(), topics


@dataclass(frozen=True)
class Sequence:
    """One item's token row. `final` and `visual` are the compress positions; `visual` is -1 without `<IMG_EMB>`."""

    ids: list[int]
    final: int
    visual: int
    has_image: bool  # visual tokens stand in the row


def lay_out(tokens: list[int], image_tokens: int) -> Sequence:
    """Splice: make room for the image's Q tokens where `<IMG>` stands, and find the compress positions."""
    ids: list[int] = []
    for token in tokens:
        ids.extend([IMG] * image_tokens if token == IMG else [token])
    # The state that predicts the image's word stands just before <IMG_EMB>.
    visual = ids.index(IMG_EMB) - 1 if IMG_EMB in ids else -1
    return Sequence(ids, len(ids) - 1, visual, IMG in ids)


def kinds_of(variant: VariantSpec) -> list[PromptKind]:
    """The prompts that a variant may use."""
    kinds: list[PromptKind] = ["text"]
    if variant.early:
        kinds.append("image")
        if variant.text:
            kinds.append("micl" if variant.micl else "basic")
    return kinds


class Prompter:
    """Items → token rows, for one tokenizer, template, variant and number of visual tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        variant: VariantSpec,
        settings: Prompt,
        image_tokens: int,
        template: Template | None = None,
    ) -> None:
        template = template or load_template(settings.template)
        limits = {k: v for k in ("title_chars", "content_chars", "topics") if (v := getattr(settings, k)) is not None}
        self.template = replace(template, **limits)
        self.variant, self.image_tokens, self.body_tokens = variant, image_tokens, settings.body_tokens
        self.tokenizer = tokenizer
        self.start = _start_ids(tokenizer)
        self.suffix = self._tokens(self.template.suffix)
        for kind in kinds_of(variant):
            fixed = len(self._body(FIELDS.sub("", getattr(self.template, kind))))
            if fixed > self.body_tokens:
                raise BadInput(
                    f"the {kind} prompt has {fixed} tokens before any field is filled in, more than body_tokens {self.body_tokens}",
                    "raise prompt.body_tokens or shorten the template",
                )

    def kind(self, *, image: bool, text: bool) -> PromptKind:
        """The prompt for what an item has, in this variant."""
        if not (image and self.variant.early):
            return "text"
        if not (text and self.variant.text):
            return "image"
        return "micl" if self.variant.micl else "basic"

    def __call__(self, item: Item, *, image: bool) -> Sequence:
        """Lay out one item; `image` says whether its picture can be had."""
        kind = self.kind(image=image, text=item.has_text)
        body = self._fitted(getattr(self.template, kind), self._fields(item))
        return lay_out([*self.start, *body, *self.suffix], self.image_tokens)

    def render(self, item: Item, *, image: bool) -> str:
        """The prompt as text, for people to read."""
        body = getattr(self.template, self.kind(image=image, text=item.has_text))
        return _fill(body, self._fields(item)) + self.template.suffix

    def _fields(self, item: Item) -> dict[str, str]:
        content, found = split_topics(item.content)
        topics = list(dict.fromkeys([*item.topics, *found]))[: self.template.topics]
        return {
            "content": content.replace("\r\n", "\n").replace("\n", self.template.newline)[
                : self.template.content_chars
            ],
            "topics": self.template.topic_separator.join(topics),
            "title": item.title.replace("\n", " ")[: self.template.title_chars],
            "category": item.category,
        }

    def _fitted(self, body: str, fields: dict[str, str]) -> list[int]:
        """Tokens of the filled body, at most `body_tokens`: content is cut first, then topics, then the title."""
        tokens = self._body(body, fields)
        for name in ("content", "topics", "title", "category"):
            if len(tokens) <= self.body_tokens:
                break
            text, low, high = fields[name], 0, len(fields[name])
            while low < high:  # the longest beginning that fits
                middle = (low + high + 1) // 2
                fits = len(self._body(body, fields | {name: text[:middle]})) <= self.body_tokens
                low, high = (middle, high) if fits else (low, middle - 1)
            fields = fields | {name: text[:low]}
            tokens = self._body(body, fields)
        return tokens

    def _body(self, body: str, fields: dict[str, str] | None = None) -> list[int]:
        out: list[int] = []
        for piece in _PIECES.split(body):  # split before filling: a user's "<IMG>" is text
            out.extend([WORDS[piece]] if piece in WORDS else self._tokens(_fill(piece, fields or {})))
        return out

    def _tokens(self, text: str) -> list[int]:
        if not text:
            return []
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [int(i) for i in ids]


def _fill(body: str, fields: dict[str, str]) -> str:
    return FIELDS.sub(lambda match: fields.get(match[1], ""), body)


def _start_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What this tokenizer puts before every text (a BOS, or nothing), found by trying."""
    with_special = list(tokenizer("a")["input_ids"])
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    for cut in range(len(with_special)):
        if with_special[cut : cut + len(plain)] == plain:
            return [int(i) for i in with_special[:cut]]
    return []
