"""The contrastive loss with several positives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from n2kit.contract import LossOut
from n2kit_losses.config import ContrastiveConfig
from n2kit_losses.losses import Contrastive, count, no_negatives


class MultiPositiveLoss(Contrastive):
    """1/2B Σ_i (Σ_p g_ip log(1 + Σ_n exp(s_in − s_ip)) / Σ_p g_ip) over rows i, the rows p of their known partners, and negatives n.

    s are scaled cosines, g the grades of pairs. Other partners are no negatives of one (Khosla et al. 2020, arXiv 2004.11362, have
    them in the denominator). A row with one partner alone costs what it costs in `infonce` with form `one_tower`.
    """

    config_class = ContrastiveConfig
    extra_inputs = frozenset({"negatives", "positives"})

    def forward(
        self,
        views: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        exclude: Tensor | None = None,
        negatives: Tensor | None = None,
        positives: Tensor | None = None,
    ) -> LossOut:
        x, hard = views["multimodal"], count(negatives)
        rows = len(x) - hard
        every = torch.arange(rows, device=x.device)
        partner = every.roll(rows // 2)
        weights = x.new_zeros(rows, len(x), dtype=torch.float32) if positives is None else positives[:rows].float()
        if positives is None:
            weights[every, partner] = 1
        unit = F.normalize(x.float(), dim=-1)
        logits = unit[:rows] @ unit.T * self.scale
        hidden = no_negatives(len(x), exclude, x.device, hard)[:rows] | (weights > 0)
        hidden[every, partner] = True
        # The lowest finite number, since a row may have no negative at all: −∞ alone would have no gradient.
        against = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).logsumexp(1)
        costs = F.softplus(against[:, None] - logits)
        loss = ((weights * costs).sum(1) / weights.sum(1)).mean()
        return LossOut(loss, {"multimodal": loss.detach(), "temperature": self.temperature.detach()})
