"""Contrastive losses on pairs. Row i and row i+B are partners; the same item and known positives are never negatives."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2kit import Loss, LossOut
from n2kit_losses.config import InfoNCEConfig, NoteLLM2Config


class Contrastive(Loss):
    """A learned temperature: logits are cosines times exp(τ), clamped above."""

    def __init__(self, config: InfoNCEConfig) -> None:
        super().__init__(config)
        self.temperature = nn.Parameter(torch.tensor(float(config.temperature)))

    @property
    def scale(self) -> Tensor:
        limit = self.config.max_scale
        tau: Tensor = self.temperature
        if limit is not None:
            # The value is clamped and the gradient is not: a temperature above the limit can come back.
            tau = tau + (tau.clamp(max=math.log(limit)) - tau).detach()
        return tau.exp()


class NoteLLM2Loss(Contrastive):
    """(w_t L(multimodal) + w_v L(visual)) / (w_t + w_v) (NoteLLM-2, equation 8); without a visual view, L(multimodal).

    In a mixed batch the visual term is taken over the pairs whose two items both have a picture.
    """

    config_class = NoteLLM2Config

    def forward(
        self, views: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None, exclude: Tensor | None = None
    ) -> LossOut:
        multimodal = one_tower(views["multimodal"], self.scale, exclude=exclude)
        terms = {"multimodal": multimodal.detach()}
        loss = multimodal
        if "visual" in views:
            keep = (present or {}).get("visual")
            visual = one_tower(views["visual"], self.scale, keep=keep, exclude=exclude)
            terms["visual"] = visual.detach()
            text, vision = self.config.text_weight, self.config.vision_weight
            if keep is None or bool((keep & keep.roll(len(keep) // 2)).any()):
                loss = (text * multimodal + vision * visual) / (text + vision)
        return LossOut(loss, terms | {"temperature": self.temperature.detach()})


class SymmetricInfoNCE(Contrastive):
    """Two towers: cross entropy of left → right and of right → left, averaged, on the multimodal view."""

    config_class = InfoNCEConfig

    def forward(
        self, views: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None, exclude: Tensor | None = None
    ) -> LossOut:
        left, right = F.normalize(views["multimodal"].float(), dim=-1).chunk(2)
        logits = left @ right.T * self.scale
        if exclude is not None:
            own = torch.eye(len(left), dtype=torch.bool, device=left.device)
            logits = logits.masked_fill(exclude[: len(left), len(left) :] & ~own, -torch.inf)
        partner = torch.arange(len(left), device=left.device)
        loss = (F.cross_entropy(logits, partner) + F.cross_entropy(logits.T, partner)) / 2
        return LossOut(loss, {"multimodal": loss.detach(), "temperature": self.temperature.detach()})


def one_tower(x: Tensor, scale: Tensor, keep: Tensor | None = None, exclude: Tensor | None = None) -> Tensor:
    """InfoNCE among all 2B rows of one set of vectors: the label of a row is its partner, all other rows are negatives.

    Args:
        x: [2B, D], not normalised.
        keep: [2B] bool; a row that is not kept is neither anchor nor negative, nor is its partner an anchor.
        exclude: [2B, 2B] bool, pairs of rows that are no negatives; partners stay positives.

    Returns:
        A scalar: the mean over the kept anchors, 0 with a gradient of 0 if there are none.
    """
    rows = torch.arange(len(x), device=x.device)
    partner = rows.roll(len(x) // 2)
    unit = F.normalize(x.float(), dim=-1)
    logits = unit @ unit.T * scale
    hidden = torch.eye(len(x), dtype=torch.bool, device=x.device)
    if exclude is not None:
        hidden = hidden | exclude.index_put((rows, partner), torch.zeros((), dtype=torch.bool, device=x.device))
    anchors = rows
    if keep is not None:
        anchors = rows[keep & keep[partner]]
        hidden = hidden | ~keep[None, :]
    losses = F.cross_entropy(logits.masked_fill(hidden, -torch.inf)[anchors], partner[anchors], reduction="none")
    return losses.sum() / max(1, len(anchors))
