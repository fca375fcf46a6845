"""One batch of tensors: the rows of several items, padded, with their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from n2kit.contract.interfaces import VisionOut
from n2kit.modeling.prompts import PAD
from n2kit.modeling.prompts import Sequence as TokenRow


@dataclass
class Batch:
    """`B` items of which `I` have a picture.

    ids [B, T] (negative: our own words), final [B] and visual [B] compress positions (visual -1: none), in_prompt [I] bool
    (visual tokens stand in the row), rows [I] the item of each picture, and either pixels [I, 3, H, W] or seen, the frozen
    encoder's output for them; or apart, I such outputs where the cache holds them, which `joined` makes `seen` of.
    Where rows go on behind their compress position: ends [B] their last positions, answers [B] how many tokens the answers there have.
    known: a row's number → its state [Dh] at its compress position, where it is at hand; or, with a depth, what so many of the
    LLM's blocks give for its tokens, [T, D].
    """

    ids: Tensor
    final: Tensor
    visual: Tensor
    rows: Tensor
    in_prompt: Tensor
    pixels: Tensor | None = None
    seen: VisionOut | None = None
    apart: list[VisionOut] | None = None
    ends: Tensor | None = None
    answers: Tensor | None = None
    known: dict[int, Tensor] = field(default_factory=dict)
    depth: int = 0

    @property
    def last(self) -> Tensor:
        """[B], the last position of each row that is no padding."""
        return self.final if self.ends is None else self.ends

    def answer_tokens(self) -> tuple[Tensor, Tensor]:
        """Row and position, [n] each, of the tokens of all answers."""
        assert self.answers is not None
        places, last = torch.arange(self.ids.shape[1], device=self.ids.device), self.last[:, None]
        rows, at = ((places <= last) & (places > last - self.answers[:, None])).nonzero(as_tuple=True)
        return rows, at

    def to(self, device: torch.device | str) -> Batch:
        def move(value: Tensor) -> Tensor:
            return value.to(device)

        seen = None if self.seen is None else self.seen.map(move)
        pixels = None if self.pixels is None else move(self.pixels)
        names = ("ids", "final", "visual", "rows", "in_prompt", "ends", "answers")
        tensors = {k: t.to(device) for k in names if (t := getattr(self, k)) is not None}
        return Batch(**tensors, pixels=pixels, seen=seen, apart=self.apart, known=self.known, depth=self.depth)

    def joined(self) -> Batch:
        """With `seen` in place of `apart`, which stays in the cache's own memory until it is wanted."""
        if not self.apart:
            return self
        seen = stacked(self.apart).map(lambda t: t.to(self.ids.device))
        return replace(self, seen=seen, apart=None)

    def take(self, rows: Tensor) -> Batch:
        """The items at `rows` [n], ascending, with their pictures, and no wider than the longest of them."""
        place = self.rows.new_full((len(self.ids),), -1)
        place[rows] = torch.arange(len(rows), device=rows.device)
        theirs = place[self.rows] >= 0
        there = bool(theirs.any())
        return Batch(
            ids=self.ids[rows, : int(self.last[rows].max()) + 1],
            final=self.final[rows],
            visual=self.visual[rows],
            rows=place[self.rows[theirs]],
            in_prompt=self.in_prompt[theirs],
            pixels=self.pixels[theirs] if self.pixels is not None and there else None,
            seen=self.seen.map(lambda t: t[theirs]) if self.seen is not None and there else None,
            apart=None if self.apart is None else [self.apart[n] for n in theirs.nonzero().flatten().tolist()],
            ends=None if self.ends is None else self.ends[rows],
            answers=None if self.answers is None else self.answers[rows],
            known={n: self.known[row] for n, row in enumerate(rows.tolist()) if row in self.known},
            depth=self.depth,
        )


def stacked(outs: Sequence[VisionOut]) -> VisionOut:
    """Outputs of single pictures, tokens [N, Dv] each, as one in float32, [I, N, Dv]."""
    out = VisionOut.merge(outs, torch.stack)
    return out._replace(tokens=out.tokens.float(), pooled=None if out.pooled is None else out.pooled.float())


def collate(sequences: Sequence[TokenRow], shown: Sequence[int]) -> Batch:
    """Pad rows on the right into a batch; `shown` are the rows whose item has a picture."""
    width = max(len(s.ids) for s in sequences)
    asked = any(len(s.ids) - 1 > s.final for s in sequences)
    return Batch(
        ids=torch.tensor([s.ids + [PAD] * (width - len(s.ids)) for s in sequences]),
        final=torch.tensor([s.final for s in sequences]),
        visual=torch.tensor([s.visual for s in sequences]),
        rows=torch.tensor(list(shown), dtype=torch.long),
        in_prompt=torch.tensor([sequences[n].has_image for n in shown], dtype=torch.bool),
        ends=torch.tensor([len(s.ids) - 1 for s in sequences]) if asked else None,
        answers=torch.tensor([s.answer for s in sequences]) if asked else None,
    )
