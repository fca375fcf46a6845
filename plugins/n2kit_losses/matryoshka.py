"""Vectors whose first dimensions are good vectors by themselves (Matryoshka representation learning, arXiv 2205.13147)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from n2kit.contract import Loss, LossOut
from n2kit.errors import Mismatch
from n2kit_losses.config import MatryoshkaConfig

HALVINGS = 3  # of the full width, where none are given


class MatryoshkaLoss(Loss):
    """Σ_w weight_w · L(the first w dimensions of every view), with any other loss as L.

    Raises (when called):
        Mismatch: a width that is larger than the vectors.
    """

    config_class = MatryoshkaConfig

    def __init__(self, config: MatryoshkaConfig) -> None:
        super().__init__(config)
        component = config.inner()
        self.inner: Loss = component.make()
        self.extra_inputs = self.inner.extra_inputs

    def forward(
        self,
        views: Mapping[str, Tensor],
        present: Mapping[str, Tensor] | None = None,
        exclude: Tensor | None = None,
        **facts: Tensor,
    ) -> LossOut:
        widths = self.trained_widths(views["multimodal"].shape[-1])
        outs = [
            self.inner({name: view[:, :width] for name, view in views.items()}, present, exclude, **facts)
            for width in widths
        ]
        weights = self.config.weights or [1.0] * len(widths)
        loss = torch.stack([weight * out.loss for weight, out in zip(weights, outs, strict=True)]).sum()
        each = {f"loss@{width}": out.loss.detach() for width, out in zip(widths, outs, strict=True)}
        return LossOut(loss, outs[widths.index(max(widths))].terms | each)

    def trained_widths(self, full: int) -> list[int]:
        """List the widths whose first dimensions are trained, of vectors `full` wide.

        Raises:
            Mismatch: one is larger.
        """
        widths: list[int] = self.config.widths or list(dict.fromkeys(max(1, full >> n) for n in range(HALVINGS + 1)))
        if max(widths) > full:
            raise Mismatch(
                f"matryoshka is to train the first {max(widths)} dimensions, and the vectors have {full}",
                f"--set loss.widths={[w for w in widths if w <= full] or [full]}, or a larger head.width",
            )
        return widths
