"""Lengths of items' texts: as they are, by the text rules of a prompt template, and in tokens of a model's prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from n2kit.data.items import Items
from n2kit.modeling.prompts import PromptBuilder, ruled_fields, ruled_topics, split_topics
from n2kit.recipe.prompt_templates import Template


def text_table(items: Items, template: Template, name: str) -> dict[str, Any]:
    """Measure texts in characters, before and after the text rules of a template, and count the items that they shorten."""
    chosen = [item for item in items if item.has_text]
    if not chosen:
        return {}
    before = [len(" ".join(filter(None, (i.title, *i.topics, i.content)))) for i in chosen]
    after = [len(" ".join(filter(None, (f["title"], f["topics"], f["content"])))) for f in _ruled(chosen, template)]
    fewer = sum(len({*i.topics, *split_topics(i.content)[1]}) > len(ruled_topics(i, template)) for i in chosen)
    return {
        "characters": _spread(before), f"characters by the rules of template {name}": _spread(after),
        f"titles cut to {template.title_chars} characters": sum(len(i.title) > template.title_chars for i in chosen),
        f"contents cut to {template.content_chars} characters": sum(
            len(split_topics(i.content)[0]) > template.content_chars for i in chosen
        ),
        f"items with more than {template.topics} topics": fewer,
    }  # fmt: skip


def _ruled(items: Iterable[Any], template: Template) -> Iterable[dict[str, str]]:
    return (ruled_fields(item, template) for item in items)


def token_table(
    items: Items, builder: PromptBuilder, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Measure the prompts' bodies in tokens, and count those that are cut to the model's `body_tokens`."""
    lengths = np.zeros(len(items), np.int64)
    for n, item in enumerate(items):
        lengths[n] = builder.body_length(item, image=bool(item.image))
        if progress:
            progress(n + 1, len(items))
    cut = int((lengths > builder.body_tokens).sum())
    return {
        "tokens of a prompt's body": _spread(lengths),
        "most that the model takes": builder.body_tokens,
        "items that are cut": cut,
        "share that is cut": f"{cut / len(items):.1%}",
    }


def _spread(lengths: Any) -> str:
    middle, high, most = np.percentile(lengths, [50, 95, 100])
    return f"median {middle:,.0f}, 95 % up to {high:,.0f}, most {most:,.0f}"
