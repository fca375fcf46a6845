"""The answers that items have to generate in an epoch, under a loss with answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from n2kit.data.items import Item
from n2kit.modeling.prompts import PromptBuilder, Task, split_topics
from n2kit.train.epoch_rng import EpochRng

if TYPE_CHECKING:
    from n2kit.recipe.settings import Train


@dataclass
class AnswerTasks:
    """The task of each item in this epoch, which its compressed word has to solve (NoteLLM, arXiv 2403.01744, section 3).

    Of the items that have both a category and topics, a share of `topic_share` has to generate 1 to `max_topics` topics, which
    their prompts then lack, and the others the category. Items with one of the two have to generate that; those with neither
    have no task.
    """

    prompt_builder: PromptBuilder
    rng: EpochRng
    topic_share: float
    max_topics: int

    @classmethod
    def from_settings(cls, prompt_builder: PromptBuilder, rng: EpochRng, settings: Train) -> AnswerTasks:
        return cls(prompt_builder, rng, settings.topic_share, settings.topics_held)

    def __call__(self, item: Item) -> Task | None:
        drawn = self.rng.generator(f"task of {item.id}")
        topics = self.prompt_builder.topics(item)
        # The prompt must not become empty: what has nothing but topics keeps one.
        spare = len(topics) - (0 if item.title or split_topics(item.content)[0] else 1)
        if spare > 0 and (not item.category or drawn.random() < self.topic_share):
            held = drawn.sample(topics, drawn.randint(1, min(spare, self.max_topics)))
            return Task("topics", len(held), tuple(t for t in topics if t in held))
        return Task("category") if item.category else None
