"""Topics or the category of items, as a language model that was trained with the loss `notellm` answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from n2kit.data.items import Item
from n2kit.errors import Mismatch
from n2kit.inputs.reader import Reader
from n2kit.modeling.prompts import Task
from n2kit.utils.contexts import autocast, eval_mode
from n2kit.utils.device import pick_precision

if TYPE_CHECKING:
    from pathlib import Path

    from n2kit.inputs.reader import OnBadImage
    from n2kit.modeling.model import Model
    from n2kit.utils.device import Precision

TOPICS = 5  # asked for where nobody says how many, as the reference's evaluation does


@dataclass(frozen=True)
class Answer:
    """What was generated for an item: `text` as it came; `topics`, of it, each once, where topics were asked for."""

    id: str
    text: str
    topics: tuple[str, ...] = ()


def generate(
    model: Model,
    items: Sequence[Item],
    task: Task | None = None,
    *,
    max_new_tokens: int = 32,
    num_beams: int = 1,
    images: Path | None = None,
    on_bad_image: OnBadImage = "error",
    precision: Precision = "auto",
    skipped: dict[str, str] | None = None,
) -> Iterator[Answer]:
    """An answer for each item, one after the other.

    Args:
        task: the category, or so many topics (by default 5) beside those that the item has, which stay in its prompt.
        num_beams: likeliest beginnings that are followed at a time; 1 is greedy.
        skipped: takes id → reason of items that had to be left out or read without their picture.

    Raises:
        Mismatch: the model was not built with a loss that generates, or has no room for the answer.
        BadInput: under policy `error`, an item that cannot be read.
    """
    if "generation" not in model.loss.extra_inputs:
        raise Mismatch(
            f"the model was built with loss {model.recipe.loss.name}, which generates nothing",
            "n2kit build --loss notellm, and train it",
        )
    task = task or Task("topics", TOPICS)
    reader = Reader(
        model.prompt_builder, model.vision, images, on_bad_image, bad={} if skipped is None else skipped, answered=False
    )
    dtype, _ = pick_precision(precision, model.device)
    if dtype == torch.float32:
        model.to_float32()
    for item in items:
        with torch.no_grad(), autocast(model.device, dtype), eval_mode(model):
            batch, _ = reader([item], [task])
            if batch is None:
                continue
            batch = batch.to(model.device)
            x, _ = model.merge_visual_tokens(batch, model.encode_images(batch))
            room = model.llm.card.context - x.shape[1]
            if max_new_tokens > room:
                what = f"the answer up to {max_new_tokens}, and the llm reads {model.llm.card.context}"
                raise Mismatch(
                    f"item {item.id!r} takes {x.shape[1]} tokens, {what}", f"--max-new-tokens {max(1, room)} or fewer"
                )
            ids = model.llm.generate(x, max_new_tokens, model.llm.tokenizer.eos_token_id, num_beams)
        yield _answer(model, item, task, ids, ended=len(ids) < max_new_tokens)


def _answer(model: Model, item: Item, task: Task, ids: list[int], *, ended: bool) -> Answer:
    """The text without what the template puts around an answer.

    Where no end of text has ended it, its end is the first mark that the template ends an answer with.
    """
    template = model.prompt_builder.template
    before, _, end = template.answer.partition("{answer}")
    said: Any = model.llm.tokenizer.decode(ids, skip_special_tokens=True)
    text = said.removeprefix(before)
    text = text.removesuffix(end) if ended else text.partition(end)[0] if end else text
    if task.kind == "category":
        return Answer(item.id, text.strip())
    pieces = (piece.strip() for piece in text.split(template.topic_separator.strip() or template.topic_separator))
    return Answer(item.id, text.strip(), tuple(dict.fromkeys(p for p in pieces if p))[: task.count])
