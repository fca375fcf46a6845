"""Late fusions of the image into a compressed word: n is the word [B, Dh], v the pooled image vector [B, Dp], e = W v [B, Dh]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.contract import Fusion, LLMCard, VisionCard
from n2kit_fusion.plan import NoOptions


class Sum(Fusion):
    """The sum n + e, with which every fusion of the pooled vector begins."""

    config_class = NoOptions

    def __init__(self, config: NoOptions, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.late = nn.Linear(vision.pooled_width, llm.output_width, bias=False)

    def project(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.late(pooled)
        return out

    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        return self.mix(hidden, self.project(pooled))

    def mix(self, hidden: Tensor, late: Tensor) -> Tensor:
        """Mix hidden [B, Dh] and late [B, Dh] → [B, Dh]."""
        return hidden + late


class Concat(Sum):
    """A linear map of both: W_c [n ; e]."""

    def __init__(self, config: NoOptions, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision, llm)
        self.both = nn.Linear(2 * llm.output_width, llm.output_width, bias=False)

    def mix(self, hidden: Tensor, late: Tensor) -> Tensor:
        out: Tensor = self.both(torch.cat([hidden, late], -1))
        return out


class Gate(Sum):
    """The paper's gate: z = sigmoid(W_z [n ; e]); z ⊙ n + (1 − z) ⊙ e (NoteLLM-2, section 4.3; W_z starts Xavier-normal)."""

    def __init__(self, config: NoOptions, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision, llm)
        self.gate = xavier(2 * llm.output_width, llm.output_width)

    def opening(self, hidden: Tensor, late: Tensor) -> Tensor:
        """Compute the gate's weight of the word, z [B, Dh]."""
        return torch.sigmoid(self.gate(torch.cat([hidden, late], -1)))

    def mix(self, hidden: Tensor, late: Tensor) -> Tensor:
        z = self.opening(hidden, late)
        return z * hidden + (1 - z) * late


class NormalisedGate(Gate):
    """The gate between n and e after both are brought to RMS 1 (without weights), so that neither outweighs the other."""

    def mix(self, hidden: Tensor, late: Tensor) -> Tensor:
        return super().mix(F.rms_norm(hidden, hidden.shape[-1:]), F.rms_norm(late, late.shape[-1:]))


class TanhGate(Gate):
    """A gate between two branches: z ⊙ tanh(W_1 n) + (1 − z) ⊙ tanh(W_2 e), with z computed from n and e.

    The gated multimodal unit (arXiv 1702.01992), which stands unused in the reference code of NoteLLM-2.
    """

    def __init__(self, config: NoOptions, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision, llm)
        self.word = xavier(llm.output_width, llm.output_width)
        self.image = xavier(llm.output_width, llm.output_width)

    def mix(self, hidden: Tensor, late: Tensor) -> Tensor:
        z = self.opening(hidden, late)
        return z * torch.tanh(self.word(hidden)) + (1 - z) * torch.tanh(self.image(late))


class ResidualGate(Gate):
    """A gate on the image alone: n + z ⊙ e; the word is kept whole."""

    def mix(self, hidden: Tensor, late: Tensor) -> Tensor:
        return hidden + self.opening(hidden, late) * late


class NoFusion(Fusion):
    """A fusion that returns the word unchanged."""

    config_class = NoOptions

    def forward(self, hidden: Tensor, pooled: Tensor | None) -> Tensor:
        return hidden


def xavier(inputs: int, outputs: int) -> nn.Linear:
    """Build a Linear without bias that starts Xavier-normal."""
    made = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_normal_(made.weight)
    return made
