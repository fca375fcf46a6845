"""Late fusions of the pooled image vector into a compressed word."""

import torch
from torch import Tensor, nn

from n2kit import Fusion, LLMCard, VisionCard
from n2kit_fusion.plan import NoOptions


class Gate(Fusion):
    """e = W v; z = sigmoid(W_z [n ; e]); z ⊙ n + (1 − z) ⊙ e (NoteLLM-2, section 4.3; W_z starts Xavier-normal)."""

    config_class = NoOptions

    def __init__(self, config: NoOptions, vision: VisionCard, llm: LLMCard) -> None:
        super().__init__(config, vision=vision, llm=llm)
        self.late = nn.Linear(vision.pooled_width, llm.output_width, bias=False)
        self.gate = nn.Linear(2 * llm.output_width, llm.output_width, bias=False)
        nn.init.xavier_normal_(self.gate.weight)

    def project(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.late(pooled)
        return out

    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        late = self.project(pooled)
        z = torch.sigmoid(self.gate(torch.cat([hidden, late], -1)))
        return z * hidden + (1 - z) * late


class NoFusion(Fusion):
    """The word as it is."""

    config_class = NoOptions

    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        return hidden
