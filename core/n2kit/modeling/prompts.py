"""Templates, text rules, token layout, compress positions (NoteLLM-2, section 4.2; reference text rules).

A prompt is a body and a suffix that ends in an open quote: the state at its last token is the item's compressed word. Only
the body is ever cut, and there only the item's own fields. For a loss that generates, a row goes on behind the compressed word: the
word itself, `<TEXT_EMB>`, then a task and its answer (NoteLLM, arXiv 2403.01744, section 3).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from n2kit.errors import BadInput
from n2kit.recipe.prompt_templates import FIELDS, Template, load_template
from n2kit.recipe.variants import VariantSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from n2kit.data.items import Item
    from n2kit.recipe.settings import Prompt

# Ids of n2kit's special tokens. No tokenizer gives a negative id, so no text of a user can stand for one of them.
IMG, IMG_EMB, TEXT_EMB = -1, -2, -3
SPECIAL_TOKENS = {"<IMG>": IMG, "<IMG_EMB>": IMG_EMB, "<TEXT_EMB>": TEXT_EMB}
ANSWER_TOKENS = 48  # an answer is cut to this
PAD = 0  # fills a row on the right; causal attention never lets a real position see it

PromptKind = Literal["basic", "micl", "text", "image", "text_then_image"]
_NAMED_TOKEN = re.compile(r"<[^<>{}\s]+>")  # as tokenizers write their special tokens
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
class Task:
    """A generation task after an item's compressed word: its category, or `count` topics, which are left out of the prompt.

    `target_topics` are the topics that are left out, and the answer.
    """

    kind: Literal["category", "topics"]
    count: int = 0
    target_topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenizedPrompt:
    """One item's token ids. `pool_pos` and `visual_pool_pos` are the compress positions; `visual_pool_pos` is -1 without `<IMG_EMB>`.

    `answer` is how many of its last tokens are the answer to a task. `has_text`: a text of the item stands in it.
    """

    ids: list[int]
    pool_pos: int
    visual_pool_pos: int
    has_image: bool  # visual tokens stand in the row
    answer: int = 0
    has_text: bool = True


def layout(tokens: list[int], image_tokens: int, answer: int = 0, *, has_text: bool = True) -> TokenizedPrompt:
    """Put Q image positions in place of `<IMG>`, and find the compress positions."""
    ids: list[int] = []
    for token in tokens:
        ids.extend([IMG] * image_tokens if token == IMG else [token])
    # The state that predicts a word stands just before it: the image's before <IMG_EMB>, the item's at the end or before <TEXT_EMB>.
    visual_pool_pos = ids.index(IMG_EMB) - 1 if IMG_EMB in ids else -1
    pool_pos = ids.index(TEXT_EMB) - 1 if TEXT_EMB in ids else len(ids) - 1
    return TokenizedPrompt(ids, pool_pos, visual_pool_pos, IMG in ids, answer, has_text)


def kinds_of(variant: VariantSpec) -> list[PromptKind]:
    """List the prompts that a variant may use."""
    kinds: list[PromptKind] = ["text"]
    if variant.early:
        kinds.append("image")
        if variant.text and not variant.residual:
            kinds.append("micl" if variant.micl else "basic")
    return kinds


class PromptBuilder:
    """A builder of token rows from items, for one tokenizer, template, variant and number of visual tokens.

    Args:
        row_tokens: most tokens of a whole row, visual ones too, however many `settings.body_tokens` allows; None: any number.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        variant: VariantSpec,
        settings: Prompt,
        image_tokens: int,
        template: Template | None = None,
        row_tokens: int | None = None,
    ) -> None:
        template = template or load_template(settings.template)
        limits = {k: v for k in ("title_chars", "content_chars", "topics") if (v := getattr(settings, k)) is not None}
        self.template = replace(template, **limits)
        self.variant, self.image_tokens, self.body_tokens = variant, image_tokens, settings.body_tokens
        self.tokenizer = tokenizer
        self._special = _special_ids(tokenizer, self.template)
        self._pieces = re.compile("(" + "|".join(map(re.escape, sorted(self._special, reverse=True))) + ")")
        self.start, end = _start_and_end(tokenizer)
        self.suffix = self._body(self.template.suffix) + (end if self.template.end_tokens else [])
        self.then_image = self._body(self._then_image()) if variant.residual else []
        self._row_tokens = row_tokens
        for kind in kinds_of(variant):
            self._check(kind)

    def _check(self, kind: PromptKind) -> None:
        """Refuse a template whose own words leave no room for an item's."""
        fixed, most = len(self._body(FIELDS.sub("", getattr(self.template, kind)))), self._limit(kind)
        if fixed <= most:
            return
        what = f"the {kind} prompt has {fixed} tokens before any field is filled in"
        if most == self.body_tokens:
            raise BadInput(f"{what}, more than body_tokens {most}", "raise prompt.body_tokens or shorten the template")
        visual = f" beside the {self.image_tokens} of an image" if kind != "text" else ""
        fewer = "a connector of fewer tokens, or " if kind != "text" else ""
        raise BadInput(
            f"{what}, and a row of this language model, of {self._row_tokens} tokens, has room for {max(most, 0)}{visual}",
            f"{fewer}a shorter template",
        )

    def _limit(self, kind: PromptKind) -> int:
        """Return the most tokens of a body, `<IMG>` counted as one."""
        if self._row_tokens is None:
            return self.body_tokens
        visual = 0 if kind == "text" else self.image_tokens - (kind != "text_then_image")
        behind = 1 + len(self.then_image) + len(self.suffix) if kind == "text_then_image" else 0
        return min(self.body_tokens, self._row_tokens - len(self.start) - len(self.suffix) - visual - behind)

    def kind(self, *, image: bool, text: bool) -> PromptKind:
        """Choose the prompt for the modalities that an item has, in this variant."""
        if not (image and self.variant.early):
            return "text"
        if not (text and self.variant.text):
            return "image"
        if self.variant.residual:
            return "text_then_image"
        return "micl" if self.variant.micl else "basic"

    def __call__(self, item: Item, *, image: bool, task: Task | None = None, answered: bool = True) -> TokenizedPrompt:
        """Build the token row of one item.

        Args:
            image: True if its image can be read.
            task: the generation task after the compressed word. answered: the row ends with its answer, else with its question.
        """
        kind = self.kind(image=image, text=item.has_text)
        body = self._fitted(self._body_of(kind), self._fields(item, task), self._limit(kind))
        answer = self._answer(item, task) if task and answered else []
        question = [TEXT_EMB, *self._tokens(self._question(task))] if task else []
        behind = [TEXT_EMB, *self.then_image, *self.suffix] if kind == "text_then_image" else []
        tokens = [*self.start, *body, *self.suffix, *behind, *question, *answer]
        if not tokens:
            raise BadInput(f"item {item.id!r}: the tokenizer gives its text no token", "leave the item out")
        return layout(tokens, self.image_tokens, len(answer), has_text=item.has_text and kind != "image")

    def render(self, item: Item, *, image: bool) -> str:
        """Render the prompt as text, for people to read."""
        kind, suffix = self.kind(image=image, text=item.has_text), self.template.suffix
        behind = f"<TEXT_EMB>{self._then_image()}{suffix}" if kind == "text_then_image" else ""
        return _fill(self._body_of(kind), self._fields(item)) + suffix + behind

    def _body_of(self, kind: PromptKind) -> str:
        body: str = getattr(self.template, "text" if kind == "text_then_image" else kind)
        return body

    def _then_image(self) -> str:
        """Return the image's part of a prompt behind the text's compressed word."""
        return self.template.then_image or FIELDS.sub("", self.template.image)

    def topics(self, item: Item) -> list[str]:
        """List an item's topics, with those in its content."""
        return ruled_topics(item, self.template)

    def _question(self, task: Task) -> str:
        if task.kind == "category":
            return self.template.category_task
        return self.template.topics_task.replace("{count}", str(task.count))

    def _answer(self, item: Item, task: Task) -> list[int]:
        """Tokenize the answer, with the tokenizer's end of text."""
        said = item.category if task.kind == "category" else self.template.topic_separator.join(task.target_topics)
        end = self.tokenizer.eos_token_id
        text = self._tokens(self.template.answer.replace("{answer}", said))[:ANSWER_TOKENS]
        return text if end is None else [*text, int(end)]

    def _fields(self, item: Item, task: Task | None = None) -> dict[str, str]:
        """Return the fields by name, without those that the task asks for."""
        fields = ruled_fields(item, self.template, () if task is None else task.target_topics)
        return fields | {"category": ""} if task is not None and task.kind == "category" else fields

    def body_length(self, item: Item, *, image: bool) -> int:
        """Count the tokens of an item's body, before they are cut to `body_tokens`."""
        return len(self._body(self._body_of(self.kind(image=image, text=item.has_text)), self._fields(item)))

    def _fitted(self, body: str, fields: dict[str, str], most: int) -> list[int]:
        """Tokenize the filled body to at most `most` tokens: content is cut first, then topics, then the title."""
        tokens = self._body(body, fields)
        if body.endswith("{text}"):  # they stand in this order, and its last tokens are theirs
            return tokens[:most]
        for name in ("content", "topics", "title", "category"):
            if len(tokens) <= most:
                break
            text, low, high = fields[name], 0, len(fields[name])
            while low < high:  # the longest beginning that fits
                middle = (low + high + 1) // 2
                fits = len(self._body(body, fields | {name: text[:middle]})) <= most
                low, high = (middle, high) if fits else (low, middle - 1)
            fields = fields | {name: text[:low]}
            tokens = self._body(body, fields)
        return tokens

    def _body(self, body: str, fields: dict[str, str] | None = None) -> list[int]:
        out: list[int] = []
        for piece in self._pieces.split(body):  # split before filling: a user's "<IMG>" is text
            special = self._special.get(piece)
            out.extend(self._tokens(_fill(piece, fields or {})) if special is None else [special])
        return out

    def _tokens(self, text: str) -> list[int]:
        if not text:
            return []
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [int(i) for i in ids]


def ruled_topics(item: Item, template: Template) -> list[str]:
    """List an item's topics, with those in its content, as many as a template takes."""
    return list(dict.fromkeys([*item.topics, *split_topics(item.content)[1]]))[: template.topics]


def ruled_fields(item: Item, template: Template, left_out: Collection[str] = ()) -> dict[str, str]:
    """Return an item's texts by field, by the text rules of a template; topics that are `left_out` are not among them."""
    content, _ = split_topics(item.content)
    return {
        "content": content.replace("\r\n", "\n").replace("\n", template.newline)[: template.content_chars],
        "topics": template.topic_separator.join(t for t in ruled_topics(item, template) if t not in left_out),
        "title": item.title.replace("\n", " ")[: template.title_chars],
        "category": item.category,
    }


def _fill(body: str, fields: dict[str, str]) -> str:
    whole = " ".join(text for name in ("title", "topics", "content") if (text := fields.get(name)))
    return FIELDS.sub(lambda match: whole if match[1] == "text" else fields.get(match[1], ""), body)


def _special_ids(tokenizer: PreTrainedTokenizerBase, template: Template) -> dict[str, int]:
    """Map the special tokens that a template may have to their ids: n2kit's, and the tokenizer's where the template asks for them.

    Raises:
        BadInput: the template has one that the tokenizer does not know.
    """
    if not template.special_tokens:
        return SPECIAL_TOKENS
    own = {str(token): int(id) for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    texts = [text for text in vars(template).values() if isinstance(text, str)]
    named = {token for text in texts for token in _NAMED_TOKEN.findall(text)}
    if unknown := sorted(named - set(own) - set(SPECIAL_TOKENS)):
        raise BadInput(
            f"the prompt template has the special token {unknown[0]}, and the tokenizer has none",
            "a template for this model: --set prompt.template=…",
        )
    return own | SPECIAL_TOKENS


def _start_and_end(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Find the ids that a tokenizer puts before every text (a BOS, CLS, or nothing) and behind it (EOS, SEP), by trying."""
    whole = [int(i) for i in tokenizer("a")["input_ids"]]
    plain = [int(i) for i in tokenizer("a", add_special_tokens=False)["input_ids"]]
    for cut in range(len(whole)):
        if whole[cut : cut + len(plain)] == plain:
            return whole[:cut], whole[cut + len(plain) :]
    return [], []
