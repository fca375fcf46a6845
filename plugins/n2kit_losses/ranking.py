"""Losses that only compare: triplet and CoSENT. Row i and row i+B are partners; masking as in `losses`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from n2kit.contract import Loss, LossOut
from n2kit_losses.config import CoSENTConfig, TripletConfig
from n2kit_losses.losses import count, no_negatives


class TripletLoss(Loss):
    """max(0, margin + cos(i, j) − cos(i, partner of i)), the mean over all rows i and their negatives j among all rows.

    hardest: only the negative of each row that has the largest cosine. No negatives at all: 0, with a gradient of 0.
    """

    config_class = TripletConfig
    extra_inputs = frozenset({"negatives"})

    def forward(
        self,
        views: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        exclude: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> LossOut:
        x, hard = views["multimodal"], count(negatives)
        every = torch.arange(len(x), device=x.device)
        rows = every[: len(x) - hard]
        partner = rows.roll(len(rows) // 2)
        unit = F.normalize(x.float(), dim=-1)
        cosines = unit[: len(rows)] @ unit.T
        excess = self.config.margin + cosines - cosines[rows, partner][:, None]
        negative = ~no_negatives(len(x), exclude, x.device, hard)[: len(rows)] & (every != partner[:, None])
        if self.config.negatives == "hardest":
            triplets = excess.masked_fill(~negative, -torch.inf).amax(1)[negative.any(1)]
        else:
            triplets = excess[negative]
        loss = triplets.relu().sum() / max(1, len(triplets))
        return LossOut(loss, {"multimodal": loss.detach()})


class CoSENTLoss(Loss):
    """log(1 + Σ exp(λ (cos_q − cos_p))) over pairs p, q where p has the higher grade (Su 2022, kexue.fm/archives/8847).

    With `in_batch`, a left row and another pair's right row are a pair of grade 0 too, unless `exclude` names them. Without
    it, a batch whose pairs all have one grade has a loss of 0.
    """

    config_class = CoSENTConfig
    extra_inputs = frozenset({"grades"})

    def forward(
        self,
        views: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        exclude: Tensor | None = None,
        grades: Tensor | None = None,
    ) -> LossOut:
        x = views["multimodal"]
        half = len(x) // 2
        if grades is None:
            grades = x.new_ones(half)
        left, right = F.normalize(x.float(), dim=-1).chunk(2)
        logits = left @ right.T * self.config.scale
        graded = logits.diagonal()
        wrong = [logits.new_zeros(1), (graded[None] - graded[:, None])[grades[:, None] > grades[None]]]
        if self.config.in_batch:
            hidden = no_negatives(len(x), exclude, x.device)[:half, half:]
            others = logits[~hidden & ~torch.eye(half, dtype=torch.bool, device=x.device)]
            # All of them stand below the same graded pairs: their sum is taken once, not once a pair.
            wrong.append((others.logsumexp(0) - graded)[grades > 0])
        loss = torch.cat(wrong).logsumexp(0)
        return LossOut(loss, {"multimodal": loss.detach()})
