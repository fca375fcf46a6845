"""The joined model: see, connect, splice, read, compress, fuse (NoteLLM-2, figure 3, from top to bottom)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from n2kit.contract.interfaces import LLM, Connector, Fusion, Loss, Part, VisionEncoder, VisionOut
from n2kit.errors import BadInput
from n2kit.modeling import lora
from n2kit.modeling import trainable as tuners
from n2kit.modeling.prefix_sharing import ALL_AT_ONCE, Ways, states_around
from n2kit.modeling.prompts import IMG, WORDS, Prompter
from n2kit.modeling.vision import look
from n2kit.recipe.prompt_templates import Template
from n2kit.recipe.tuning import TUNED, Tune
from n2kit.recipe.variants import SPECS

if TYPE_CHECKING:
    import numpy as np

    from n2kit.data.items import Item
    from n2kit.modeling.batch import Batch
    from n2kit.plugins.weights_reference import WeightsReference
    from n2kit.recipe.settings import Recipe


VIEWS, ANSWERS = ("multimodal", "visual"), "answers"


@dataclass
class Output:
    """What one batch of B items gives.

    views: name → vectors [B, D] before the L2 norm: `multimodal`, and `visual` under mICL.
    present: name → [B] bool, for views that not every item has.
    visual_tokens [I, Q, De] and late [I, Dh] where the variant computes them, else None.
    answers [B, 2] where answers stand in the rows: each one's −log p, summed over its tokens, and how many these are.
    """

    views: dict[str, Tensor]
    present: dict[str, Tensor]
    visual_tokens: Tensor | None = None
    late: Tensor | None = None
    answers: Tensor | None = None


class Words(nn.Module):
    """Our special words: a small embedding table of their own, so that the LLM's vocabulary is never resized."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(WORDS), width)

    @torch.no_grad()
    def start_at(self, llm: LLM) -> None:
        """Start every word at the direction of the mean of the LLM's table, at the table's RMS."""
        rows = embedding_sample(llm)
        mean = rows.mean(0)
        self.table.weight.copy_(mean * (rms(rows) / rms(mean).clamp_min(1e-12)))

    def fill(self, x: Tensor, ids: Tensor) -> Tensor:
        """x [B, T, De] with the rows where ids [B, T] are negative (-1, -2, …) replaced by the words."""
        return torch.where((ids < 0)[..., None], self.table((-ids - 1).clamp_min(0)).to(x.dtype), x)


@dataclass
class Parts:
    """The pieces of a joined model; `vision`, `connector` and `fusion` only where the variant uses them."""

    llm: LLM
    loss: Loss
    vision: VisionEncoder | None = None
    connector: Connector | None = None
    fusion: Fusion | None = None

    def items(self) -> Iterable[tuple[str, Part]]:
        return ((k, p) for k, p in vars(self).items() if p is not None)


@dataclass
class Provenance:
    """Where the parts came from: kind → reference, component, distribution, version, weights, licence.

    `sources`: of parts whose weights could be loaded from there again, how.
    """

    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, WeightsReference] = field(default_factory=dict)


class Model(nn.Module):
    """Any LLM joined with any vision encoder into one embedding of items."""

    gain: Tensor

    def __init__(
        self, parts: Parts, recipe: Recipe, provenance: Provenance | None = None, template: Template | None = None
    ) -> None:
        super().__init__()
        self.recipe, self.provenance = recipe, provenance or Provenance()
        self.variant = SPECS[recipe.variant]
        self.llm, self.loss = parts.llm, parts.loss
        self.vision, self.connector, self.fusion = parts.vision, parts.connector, parts.fusion
        self.ways = Ways()
        self.words = Words(parts.llm.card.input_width)
        width = parts.llm.card.output_width
        self.head = nn.Linear(width, recipe.head.width, bias=False) if recipe.head.width else nn.Identity()
        # What brings an uncalibrated connector to the scale of the LLM's own embeddings; 1 leaves it as it is.
        self.register_buffer("gain", torch.ones(()))
        self.prompter = Prompter(
            parts.llm.tokenizer, self.variant, recipe.prompt, parts.connector.tokens if parts.connector else 0, template
        )
        for kind in TUNED:
            if (part := getattr(self, kind)) is not None:
                tuners.apply(part, kind, Tune.parse(getattr(recipe, kind).tune), recipe.train.seed)

    @property
    def parts(self) -> Parts:
        return Parts(self.llm, self.loss, self.vision, self.connector, self.fusion)

    @property
    def width(self) -> int:
        """D, the length of an item's vector."""
        return self.recipe.head.width or self.llm.card.output_width

    @property
    def device(self) -> torch.device:
        return self.words.table.weight.device

    def forward(self, batch: Batch) -> Output:
        """Compute the vectors of B items; see `Output` for shapes."""
        seen = self.see(batch)
        x, tokens = self.splice(batch, seen)
        states = self.read(x, batch)
        words = {name: states[name] for name in VIEWS if name in states}
        present = {"visual": batch.visual >= 0} if self.variant.micl else {}
        late = None
        if seen is not None and self.fusion is not None:
            late = self.fusion.project(seen.pooled) if seen.pooled is not None else None
            words = {name: self._fuse(word, seen, batch.rows) for name, word in words.items()}
        answers = None if batch.answers is None else self._answers(states[ANSWERS], batch)
        return Output({name: self.head(w) for name, w in words.items()}, present, tokens, late, answers)

    def splice(self, batch: Batch, seen: VisionOut | None) -> tuple[Tensor, Tensor | None]:
        """What the LLM reads, [B, T, De], and of it the visual tokens of the pictures, [I, Q, De], where there are some."""
        x = self.words.fill(self.llm.embed(batch.ids.clamp_min(0)), batch.ids)
        if seen is None or self.connector is None or not bool(batch.in_prompt.any()):
            return x, None
        tokens = self.gain * self.connector(seen.tokens, seen.mask)
        return x.masked_scatter((batch.ids == IMG)[..., None], tokens[batch.in_prompt].to(x.dtype)), tokens

    def _answers(self, states: Tensor, batch: Batch) -> Tensor:
        """−log p of each answer, summed over its tokens, and their number, [B, 2], from the states [n, Dh] before these tokens."""
        rows, at = batch.answer_tokens()
        scores = self.llm.logits(states).float()
        costs = nn.functional.cross_entropy(scores, batch.ids[rows, at], reduction="none")
        counts = torch.bincount(rows, minlength=len(batch.ids))
        return torch.stack([costs.new_zeros(len(batch.ids)).index_add(0, rows, costs), counts.to(costs.dtype)], 1)

    def read(self, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        """x [B, T, De] → the LLM's states that are asked for: [B, Dh] a view, and [n, Dh] before the tokens of answers.

        An item without a visual view has its final state there. Rows whose state is `known` are not read.
        """
        every = torch.arange(len(x), device=x.device)
        asked = {"multimodal": (every, batch.final)}
        if self.variant.micl:
            asked["visual"] = (every, torch.where(batch.visual >= 0, batch.visual, batch.final))
        if batch.answers is not None:
            rows, at = batch.answer_tokens()
            asked[ANSWERS] = (rows, at - 1)
        rows, places = (torch.cat(column) for column in zip(*asked.values(), strict=True))
        states = states_around(
            batch.known, batch.depth, self.llm, x, batch.ids, batch.last, rows, places, self.ways
        )  # fmt: skip
        found = dict(zip(asked, states.split([len(rows) for rows, _ in asked.values()]), strict=True))
        return {name: s if name == ANSWERS else s.to(self.gain.dtype) for name, s in found.items()}

    @contextmanager
    def reading_all_at_once(self) -> Iterator[list[Tensor]]:
        """The LLM is called once with all rows of a batch, in their order and in full; its states [B, T, Dh] are put into a list."""
        states: list[Tensor] = []
        hook = self.llm.register_forward_hook(lambda _, __, out: states.append(out))
        ways, self.ways = self.ways, ALL_AT_ONCE
        try:
            yield states
        finally:
            self.ways = ways
            hook.remove()

    def widen(self) -> None:
        """All weights to float32; exact, so frozen weights stay what they are (adapters are wide from the start)."""
        for _, part in self.parts.items():
            with lora.aside(part):
                part.widen()

    def see(self, batch: Batch) -> VisionOut | None:
        """The vision encoder's output for the pictures of a batch; None where there are none."""
        if batch.seen is not None or batch.pixels is None or self.vision is None:
            return batch.seen
        out = look(self.vision, batch.pixels)
        pooled = None if out.pooled is None else out.pooled.to(self.gain.dtype)
        return VisionOut(out.tokens.to(self.gain.dtype), pooled, out.mask)

    def _fuse(self, word: Tensor, seen: VisionOut, rows: Tensor) -> Tensor:
        """Fuse the pictures [I, …] into the words [B, Dh] of their items; an item without a picture keeps its word."""
        assert self.fusion is not None
        facts = {"tokens": seen.tokens, "mask": seen.mask}
        wanted = {name: fact for name, fact in facts.items() if name in self.fusion.wants}
        fused = self.fusion(word[rows], seen.pooled, **wanted)
        return word.index_copy(0, rows, fused.to(word.dtype))

    @torch.no_grad()
    def calibrate(self, seen: VisionOut | None = None) -> None:
        """Start the connector's output at the RMS of the LLM's embeddings (an uncalibrated one has some 50 times as much).

        Args:
            seen: output of the vision encoder to go by; by default, what it gives for noise.
        """
        if self.vision is None or self.connector is None:
            return
        was_training = self.training
        if was_training:
            self.eval()
        if seen is None:
            size = self.vision.card.image_size
            noise = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
            seen = self.vision(noise.to(self.device))
        assert seen is not None
        output = self.connector(seen.tokens.to(self.gain.dtype), seen.mask)
        if was_training:
            self.train()
        self.gain.fill_(rms(embedding_sample(self.llm)) / rms(output))

    def encode(self, items: Sequence[Item | dict[str, Any]], **options: Any) -> np.ndarray:
        """Unit vectors [n, D], float32, one for each of `items`, in their order; see `n2kit.embed.encode` for the options.

        Raises:
            BadInput: what `encode` raises; and policy `skip`, under which rows would be missing.
        """
        if options.get("on_bad_image") == "skip":
            way = "n2kit.embed.encode says which ids it kept"
            raise BadInput("Model.encode gives one row an item, and skip leaves items out", way)

        encoded: np.ndarray = _above("n2kit.embed.encode").encode(self, items, **options).vectors
        return encoded

    def save(self, folder: str | Path, *, by_reference: bool | None = None) -> None:
        """Write a bundle; see `n2kit.bundle.io.save`."""
        _above("n2kit.bundle.io").save(self, Path(folder), by_reference=by_reference)


def _above(module: str) -> Any:
    """Import a module by its name: what a model offers for convenience stands above it, and nothing here imports upward."""
    return importlib.import_module(module)


def rms(x: Tensor) -> Tensor:
    return x.float().pow(2).mean().sqrt()


def embedding_sample(llm: LLM, most: int = 4096) -> Tensor:
    """Rows of the LLM's input table [n, De] as its `embed` gives them, spread over the whole vocabulary."""
    ids = torch.linspace(0, llm.card.vocab - 1, min(most, llm.card.vocab), dtype=torch.float64).long()
    return llm.embed(ids[None].to(next(llm.parameters()).device))[0].detach().float()
