"""The joined model: encode images, connect, merge, run the LLM, pool, fuse (NoteLLM-2, figure 3, from top to bottom)."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from n2kit.contract.interfaces import LLM, Connector, Fusion, Loss, Part, VisionEncoder, VisionOut
from n2kit.contract.kinds import KINDS
from n2kit.errors import counted
from n2kit.modeling import lora, outputs
from n2kit.modeling import trainable as tuners
from n2kit.modeling.prefix_sharing import NO_OPTIMIZATION, ExecutionOptions, hidden_states_with_cache
from n2kit.modeling.prompts import IMG, SPECIAL_TOKENS, PromptBuilder
from n2kit.modeling.vision import encode_images
from n2kit.recipe.prompt_templates import Template
from n2kit.recipe.tuning import TUNED, Tune
from n2kit.recipe.variants import SPECS
from n2kit.utils.contexts import eval_mode

if TYPE_CHECKING:
    import numpy as np

    from n2kit.data.given import Given
    from n2kit.modeling.batch import Batch
    from n2kit.plugins.weights_reference import WeightsReference
    from n2kit.recipe.settings import Recipe
    from n2kit.utils.device import Precision


VIEWS, ANSWERS = ("multimodal", "visual"), "answers"
JOINED = "joined"  # the state behind text and image, in variants with a residual


@dataclass
class Output:
    """The outputs for one batch of B items.

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


class SpecialTokenEmbedding(nn.Module):
    """A small embedding table of n2kit's special tokens, so that the LLM's vocabulary is never resized."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(SPECIAL_TOKENS), width)

    @torch.no_grad()
    def init_from_mean(self, llm: LLM) -> None:
        """Set every row to the direction of the mean of the LLM's table, at the table's RMS."""
        rows = embedding_sample(llm)
        mean = rows.mean(0)
        self.table.weight.copy_(mean * (rms(rows) / rms(mean).clamp_min(1e-12)))

    def fill(self, x: Tensor, ids: Tensor) -> Tensor:
        """Replace embeddings x [B, T, De] by the special tokens' where ids [B, T] are negative (-1, -2, …)."""
        return torch.where((ids < 0)[..., None], self.table((-ids - 1).clamp_min(0)).to(x.dtype), x)


class ZeroLinear(nn.Linear):
    """A linear map of unit vectors that starts at zero, so that what it is added to begins unchanged."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, Dh], scaled to unit length → [B, D], in float32 as the fused vectors."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(nn.functional.normalize(x.to(self.weight.dtype), dim=-1))


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
    """The origin of the parts: kind → reference, component, distribution, version, weights, licence.

    sources: kind → the weights' place and checksum, for parts that could be loaded from there again.
    """

    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, WeightsReference] = field(default_factory=dict)


class Model(nn.Module):
    """Any LLM joined with any vision encoder into one embedding of items."""

    connector_scale: Tensor

    def __init__(
        self, parts: Parts, recipe: Recipe, provenance: Provenance | None = None, template: Template | None = None
    ) -> None:
        super().__init__()
        self.recipe, self.provenance = recipe, provenance or Provenance()
        self.variant = SPECS[recipe.variant]
        self.llm, self.loss = parts.llm, parts.loss
        self.vision, self.connector, self.fusion = parts.vision, parts.connector, parts.fusion
        self.execution_options = ExecutionOptions()
        self.special_tokens = SpecialTokenEmbedding(parts.llm.card.input_width)
        width = parts.fusion.output_width if parts.fusion is not None else parts.llm.card.output_width
        self.head = nn.Linear(width, recipe.head.width, bias=False) if recipe.head.width else nn.Identity()
        self.residual = ZeroLinear(parts.llm.card.output_width, width) if self.variant.residual else None
        # Brings an uncalibrated connector to the scale of the LLM's own embeddings; 1 leaves it as it is.
        self.register_buffer("connector_scale", torch.ones(()))
        self.prompt_builder = PromptBuilder(
            parts.llm.tokenizer, self.variant, recipe.prompt, parts.connector.tokens if parts.connector else 0, template,
            parts.llm.card.max_tokens,
        )  # fmt: skip
        for _, made in parts.items():
            outputs.watch(made)
        for kind in TUNED:
            if (part := getattr(self, kind)) is not None:
                tuners.apply(part, kind, Tune.parse(getattr(recipe, kind).tune), recipe.train.seed)

    @property
    def parts(self) -> Parts:
        return Parts(self.llm, self.loss, self.vision, self.connector, self.fusion)

    @property
    def width(self) -> int:
        """The length D of an item's vector."""
        own = self.fusion.output_width if self.fusion is not None else self.llm.card.output_width
        return self.recipe.head.width or own

    @property
    def device(self) -> torch.device:
        return self.special_tokens.table.weight.device

    def forward(self, batch: Batch) -> Output:
        """Compute the vectors of B items; see `Output` for shapes."""
        vision_out = self.encode_images(batch)
        x, tokens = self.merge_visual_tokens(batch, vision_out)
        hidden_states = self.run_llm(x, batch)
        words = {name: hidden_states[name] for name in VIEWS if name in hidden_states}
        present = {"visual": batch.visual_pool_pos >= 0} if self.variant.micl else {}
        late = None
        if vision_out is not None and vision_out.pooled is not None and self.fusion is not None:
            late = self.fusion.project(vision_out.pooled)
        words = {name: self._fuse(word, vision_out, batch) for name, word in words.items()}
        if self.residual is not None:
            words["multimodal"] = words["multimodal"] + self.residual(hidden_states[JOINED])
        answers = None if batch.answers is None else self._answer_costs(hidden_states[ANSWERS], batch)
        return Output({name: self.head(w) for name, w in words.items()}, present, tokens, late, answers)

    def encode_images(self, batch: Batch) -> VisionOut | None:
        """Encode the images of a batch: tokens [I, N, Dv] and pooled [I, Dp]; None where there are no images."""
        if batch.vision_out is not None or batch.pixels is None or self.vision is None:
            return batch.vision_out
        out = encode_images(self.vision, batch.pixels)
        pooled = None if out.pooled is None else out.pooled.to(self.connector_scale.dtype)
        return VisionOut(out.tokens.to(self.connector_scale.dtype), pooled, out.mask)

    def merge_visual_tokens(self, batch: Batch, vision_out: VisionOut | None) -> tuple[Tensor, Tensor | None]:
        """Embed the rows for the LLM, with visual tokens in place of `<IMG>`: [B, T, De].

        Also return the visual tokens [I, Q, De], or None where no row has any.
        """
        x = self.special_tokens.fill(self.llm.embed(batch.ids.clamp_min(0)), batch.ids)
        if vision_out is None or self.connector is None or not bool(batch.in_prompt.any()):
            return x, None
        tokens = self.connector_scale * self.connector(vision_out.tokens, vision_out.mask)
        return x.masked_scatter((batch.ids == IMG)[..., None], tokens[batch.in_prompt].to(x.dtype)), tokens

    def run_llm(self, x: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Compute the LLM's hidden states of embeddings x [B, T, De]: [B, Dh] for each view, and [n, Dh] before answer tokens.

        An item without a visual view has its multimodal state there. Rows in `batch.cached_states` are not computed again.
        """
        every = torch.arange(len(x), device=x.device)
        requested = {"multimodal": (every, batch.pool_pos)}
        if self.variant.micl:
            visual = torch.where(batch.visual_pool_pos >= 0, batch.visual_pool_pos, batch.pool_pos)
            requested["visual"] = (every, visual)
        if self.residual is not None:
            requested[JOINED] = (every, batch.last_pos)
        if batch.answers is not None:
            rows, at = batch.answer_tokens()
            requested[ANSWERS] = (rows, at - 1)
        rows, positions = (torch.cat(column) for column in zip(*requested.values(), strict=True))
        hidden_states = hidden_states_with_cache(
            batch.cached_states, batch.cached_layer, self.llm, x, batch.ids, batch.last_pos, rows, positions,
            self.execution_options,
        )  # fmt: skip
        pieces = hidden_states.split([len(rows) for rows, _ in requested.values()])
        found = dict(zip(requested, pieces, strict=True))
        return {name: s if name == ANSWERS else s.to(self.connector_scale.dtype) for name, s in found.items()}

    def _fuse(self, word: Tensor, vision_out: VisionOut | None, batch: Batch) -> Tensor:
        """Fuse the images [I, …] into the compressed words [B, Dh] of their items; an item without an image keeps its word."""
        if self.fusion is not None and "has_image" in self.fusion.extra_inputs:
            return self._fuse_all(word, vision_out, batch)
        if self.fusion is None or vision_out is None:
            return word
        known = {"tokens": vision_out.tokens, "mask": vision_out.mask}
        extras = {name: extra for name, extra in known.items() if name in self.fusion.extra_inputs}
        fused = self.fusion(word[batch.image_owner], vision_out.pooled, **extras)
        return word.index_copy(0, batch.image_owner, fused.to(word.dtype))

    def _fuse_all(self, word: Tensor, vision_out: VisionOut | None, batch: Batch) -> Tensor:
        """Fuse words [B, Dh] of all items, with zeros in place of images that are not there: [B, the fusion's width]."""
        assert self.fusion is not None
        assert self.vision is not None
        rows, card = len(word), self.vision.card
        has_image = torch.zeros(rows, dtype=torch.bool, device=word.device)
        has_image[batch.image_owner] = True
        has_text = torch.ones_like(has_image) if batch.has_text is None else batch.has_text
        if vision_out is None:
            pooled = word.new_zeros(0, card.pooled_width) if card.pooled_width else None
            vision_out = VisionOut(word.new_zeros(0, card.tokens, card.token_width), pooled)

        def spread(part: Tensor | None) -> Tensor | None:
            return (
                part if part is None else part.new_zeros(rows, *part.shape[1:]).index_copy(0, batch.image_owner, part)
            )

        known = {"tokens": vision_out.tokens, "mask": vision_out.mask} | {"has_text": has_text, "has_image": has_image}
        extras = {name: extra for name, extra in known.items() if name in self.fusion.extra_inputs}
        extras |= {name: spread(extras[name]) for name in ("tokens", "mask") if name in extras}
        return self.fusion(word, spread(vision_out.pooled), **extras).to(word.dtype)  # type: ignore[no-any-return]

    def _answer_costs(self, hidden_states: Tensor, batch: Batch) -> Tensor:
        """Compute −log p of each answer, summed over its tokens, and their number, [B, 2].

        hidden_states [n, Dh] are those just before the answers' tokens.
        """
        rows, at = batch.answer_tokens()
        scores = self.llm.logits(hidden_states).float()
        costs = nn.functional.cross_entropy(scores, batch.ids[rows, at], reduction="none")
        counts = torch.bincount(rows, minlength=len(batch.ids))
        return torch.stack([costs.new_zeros(len(batch.ids)).index_add(0, rows, costs), counts.to(costs.dtype)], 1)

    @contextmanager
    def capture_hidden_states(self) -> Iterator[list[Tensor]]:
        """Collect the LLM's hidden states [B, T, Dh] of each forward pass in a list.

        Inside the `with` block the LLM is called once a batch, with all rows in their order and in full.
        """
        captured: list[Tensor] = []
        hook = self.llm.register_forward_hook(lambda _, __, out: captured.append(out))
        options, self.execution_options = self.execution_options, NO_OPTIMIZATION
        try:
            yield captured
        finally:
            self.execution_options = options
            hook.remove()

    def prepare_for(self, dtype: torch.dtype) -> None:
        """Convert weights to what a computation in `dtype` takes; exact, so frozen ones stay what they are.

        Adapters are float32 from the start.
        """
        for _, part in self.parts.items():
            with lora.adapter_removed(part):
                part.prepare_for(dtype)

    @torch.no_grad()
    def calibrate(self, vision_out: VisionOut | None = None) -> None:
        """Scale the connector's output to the RMS of the LLM's embeddings (an uncalibrated one has some 50 times as much).

        Args:
            vision_out: output of the vision encoder to measure the connector with; by default, its output for noise.
        """
        if self.vision is None or self.connector is None:
            return
        with eval_mode(self):
            if vision_out is None:
                size = self.vision.card.image_size
                noise = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
                vision_out = self.vision(noise.to(self.device))
            assert vision_out is not None
            output = self.connector(vision_out.tokens.to(self.connector_scale.dtype), vision_out.mask)
        self.connector_scale.fill_(rms(embedding_sample(self.llm)) / rms(output))

    def __repr__(self) -> str:
        """Describe the model in a few lines: its parts, their weights and sizes, and how they are tuned."""
        facts, backbones = self.provenance.parts, ("llm", "vision")
        references = {kind: str(facts.get(kind, {}).get("reference", "?")) for kind, _ in self.parts.items()}
        name = "+".join(dict.fromkeys(references[kind] for kind in backbones if kind in references))
        lines = [f"<n2kit.Model {name}, variant {self.recipe.variant}: vectors of {self.width}"]
        for kind, part in sorted(self.parts.items(), key=lambda part: KINDS.index(part[0])):
            weights = str(facts.get(kind, {}).get("weights", "")) if kind in backbones else ""
            size = sum(p.numel() for p in part.parameters())
            tuned = getattr(getattr(self.recipe, kind), "tune", "")
            said = ", ".join(filter(None, (weights, counted(size, "parameter") * bool(size), tuned)))
            lines.append(f"  {kind:9} {references[kind]}" + f": {said}" * bool(said))
        return "\n".join(lines) + ">"

    def encode(
        self,
        items: Given,
        *,
        images: str | Path | None = None,
        batch_size: int | None = None,
        on_bad_image: Literal["error", "text-only"] = "error",
        precision: Precision = "auto",
        show_progress: bool = False,
    ) -> np.ndarray:
        """Encode items to unit vectors [n, D], float32, in their order.

        Args:
            items: texts, dicts, images or `Item`s; one of them is one row, and none gives [0, D].
            images: the folder that image paths are relative to.
            on_bad_image: `error`; or `text-only`, which reads the text of an item whose image cannot be read.

        Raises:
            BadInput: an unknown key, an unreadable image, an item with nothing to read; `skip`, under which rows would be missing.
        """
        vectors: np.ndarray = _above("n2kit.api.encoding").encode_rows(
            self, items, images=images, batch_size=batch_size, on_bad_image=on_bad_image, precision=precision, show_progress=show_progress
        )  # fmt: skip
        return vectors

    def save(self, folder: str | Path, *, by_reference: bool | None = None) -> None:
        """Write a bundle; see `n2kit.bundle.io.save`."""
        _above("n2kit.api.models").save(self, Path(folder), by_reference=by_reference)


def _above(module: str) -> Any:
    """Import a module of a higher layer by its name: the model offers its functions for convenience, and does not depend on it."""
    return importlib.import_module(module)


def rms(x: Tensor) -> Tensor:
    """Compute the root mean square of all elements of x, in float32."""
    return x.float().pow(2).mean().sqrt()


def embedding_sample(llm: LLM, max_rows: int = 4096) -> Tensor:
    """Look up rows of the LLM's input table [n, De], spread over the whole vocabulary."""
    ids = torch.linspace(0, llm.card.vocab - 1, min(max_rows, llm.card.vocab), dtype=torch.float64).long()
    return llm.embed(ids[None].to(next(llm.parameters()).device))[0].detach().float()
