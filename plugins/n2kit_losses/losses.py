"""Contrastive losses on pairs. Row i and row i+B are partners; the same item and known positives are never negatives.

Hard negatives are rows behind these 2B: candidates of every row, and nobody's partner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.contract import Loss, LossOut
from n2kit_losses.config import (
    ContrastiveConfig,
    InfoNCEConfig,
    NoteLLM2Config,
    NoteLLMConfig,
    SigmoidConfig,
    SoftmaxConfig,
)


class Contrastive(Loss):
    """A learned temperature: logits are cosines times exp(τ), clamped above."""

    extra_inputs = frozenset({"negatives"})

    def __init__(self, config: ContrastiveConfig) -> None:
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


class Softmax(Contrastive):
    """A cross entropy over the rows of the batch.

    With the option `log_q`, log q of an item is subtracted from its logit, partner or not: an item that is in many pairs is a
    negative too often (Yi et al. 2019, doi 10.1145/3298689.3346996, section 4).
    """

    def __init__(self, config: SoftmaxConfig) -> None:
        super().__init__(config)
        if config.log_q:
            self.extra_inputs = self.extra_inputs | {"log_q"}


class NoteLLM2Loss(Softmax):
    """(w_t L(multimodal) + w_v L(visual)) / (w_t + w_v) (NoteLLM-2, equation 8); without a visual view, L(multimodal).

    In a mixed batch the visual term is taken over the pairs whose two items both have a picture.
    """

    config_class = NoteLLM2Config

    def forward(
        self,
        views: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        exclude: Tensor | None = None,
        log_q: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> LossOut:
        hard = count(negatives)
        multimodal = one_tower(views["multimodal"], self.scale, exclude, log_q, hard=hard)
        terms = {"multimodal": multimodal.detach()}
        loss = multimodal
        if "visual" in views:
            keep = (present or {}).get("visual")
            visual = one_tower(views["visual"], self.scale, exclude, log_q, keep, hard)
            terms["visual"] = visual.detach()
            text, vision = self.config.text_weight, self.config.vision_weight
            rows = None if keep is None else keep[: len(keep) - hard]
            if rows is None or bool((rows & rows.roll(len(rows) // 2)).any()):
                loss = (text * multimodal + vision * visual) / (text + vision)
        return LossOut(loss, terms | {"temperature": self.temperature.detach()})


class NoteLLMLoss(NoteLLM2Loss):
    """(L + α L_LM) / (1 + α) (NoteLLM, arXiv 2403.01744, equation 6): vectors, and answers about the item behind them.

    L is notellm2's; L_LM the cross entropy of the next token, over the answers' tokens alone.
    """

    config_class = NoteLLMConfig
    extra_inputs = frozenset({"generation", "negatives"})

    def forward(
        self,
        views: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        exclude: Tensor | None = None,
        log_q: Tensor | None = None,
        negatives: Tensor | None = None,
        generation: Tensor | None = None,
    ) -> LossOut:
        out = super().forward(views, present, exclude, log_q, negatives)
        if generation is None:
            return out
        alpha = self.config.generation_weight
        loss = (out.loss + alpha * generation) / (1 + alpha)
        return LossOut(loss, out.terms | {"generation": generation.detach()})


class InfoNCE(Softmax):
    """Cross entropy on the multimodal view, in one of three forms.

    symmetric: left → right and right → left, averaged (CLIP). one_direction: left → right. one_tower: every row against all
    others, as in notellm2.
    """

    config_class = InfoNCEConfig

    def forward(
        self,
        views: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        exclude: Tensor | None = None,
        log_q: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> LossOut:
        x, scale, hard = views["multimodal"], self.scale, count(negatives)
        if self.config.form == "one_tower":
            loss = one_tower(x, scale, exclude, log_q, hard=hard)
        else:
            loss = left_to_right(x, scale, exclude, log_q, hard)
        if self.config.form == "symmetric":
            every = torch.arange(len(x), device=x.device)
            turned = torch.cat([*reversed(every[: len(x) - hard].chunk(2)), every[len(x) - hard :]])
            drop = None if exclude is None else exclude[turned[:, None], turned]
            back = left_to_right(x[turned], scale, drop, None if log_q is None else log_q[turned], hard)
            loss = (loss + back) / 2
        return LossOut(loss, {"multimodal": loss.detach(), "temperature": self.temperature.detach()})


class SigmoidLoss(Contrastive):
    """−1/B Σ_ij log sigmoid(±(exp(τ) cos_ij + b)), + for partners, over left rows i and right or hard rows j (SigLIP, arXiv 2303.15343)."""

    config_class = SigmoidConfig

    def __init__(self, config: SigmoidConfig) -> None:
        super().__init__(config)
        self.bias = nn.Parameter(torch.tensor(float(config.bias)))

    def forward(
        self,
        views: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        exclude: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> LossOut:
        x, hard = views["multimodal"], count(negatives)
        half = (len(x) - hard) // 2
        unit = F.normalize(x.float(), dim=-1)
        logits = unit[:half] @ unit[half:].T * self.scale + self.bias
        sign = 2 * torch.eye(*logits.shape, device=x.device) - 1
        hidden = no_negatives(len(x), exclude, x.device, hard)[:half, half:]
        losses = -F.logsigmoid(sign * logits).masked_fill(hidden, 0)
        loss = losses.sum() / half
        learned = {"temperature": self.temperature.detach(), "bias": self.bias.detach()}
        return LossOut(loss, {"multimodal": loss.detach()} | learned)


def count(negatives: Tensor | None) -> int:
    """Count the rows that are hard negatives."""
    return 0 if negatives is None else len(negatives)


def one_tower(
    x: Tensor,
    scale: Tensor,
    exclude: Tensor | None = None,
    log_q: Tensor | None = None,
    keep: Tensor | None = None,
    hard: int = 0,
) -> Tensor:
    """InfoNCE among all rows of one set of vectors: the label of a row is its partner, all other rows are negatives.

    Args:
        x: [2B + M, D], not normalised.
        exclude: [2B + M, 2B + M] bool, pairs of rows that are no negatives; partners stay positives.
        log_q: [2B + M], subtracted from the logits of a row as a candidate.
        keep: [2B + M] bool; a row that is not kept is neither anchor nor negative, nor is its partner an anchor.
        hard: M, how many of the last rows are hard negatives.

    Returns:
        A scalar: the mean over the kept anchors, 0 with a gradient of 0 if there are none.
    """
    rows = len(x) - hard
    anchors = torch.arange(rows, device=x.device)
    partner = anchors.roll(rows // 2)
    unit = F.normalize(x.float(), dim=-1)
    logits = unit[:rows] @ unit.T * scale
    if log_q is not None:
        logits = logits - log_q
    hidden = no_negatives(len(x), exclude, x.device, hard)[:rows]
    if keep is not None:
        anchors = anchors[keep[:rows] & keep[partner]]
        hidden = hidden | ~keep
    losses = F.cross_entropy(logits.masked_fill(hidden, -torch.inf)[anchors], partner[anchors], reduction="none")
    return losses.sum() / max(1, len(anchors))


def left_to_right(
    x: Tensor, scale: Tensor, exclude: Tensor | None = None, log_q: Tensor | None = None, hard: int = 0
) -> Tensor:
    """InfoNCE of the first B rows of x [2B + M, D] against the rows behind them alone; otherwise as `one_tower`."""
    half = (len(x) - hard) // 2
    unit = F.normalize(x.float(), dim=-1)
    logits = unit[:half] @ unit[half:].T * scale
    if log_q is not None:
        logits = logits - log_q[half:]
    hidden = no_negatives(len(x), exclude, x.device, hard)[:half, half:]
    return F.cross_entropy(logits.masked_fill(hidden, -torch.inf), torch.arange(half, device=x.device))


def no_negatives(rows: int, exclude: Tensor | None, device: torch.device, hard: int = 0) -> Tensor:
    """Return [rows, rows] bool, True where a row is neither partner nor negative of another: itself, and what `exclude` says.

    The last `hard` rows have no partners.
    """
    hidden = torch.eye(rows, dtype=torch.bool, device=device)
    if exclude is None:
        return hidden
    every = torch.arange(rows - hard, device=device)
    partners = (every, every.roll(len(every) // 2))
    return hidden | exclude.index_put(partners, torch.zeros((), dtype=torch.bool, device=device))
