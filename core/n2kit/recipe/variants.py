"""The variants: how image and text get into one vector. All but the last two are the paper's ablation (NoteLLM-2, table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class VariantSpec:
    """The parts of the method that a variant uses.

    early: visual tokens stand in the prompt. late: the pooled image vector is fused into the compressed word.
    micl: the image's own compressed word is a worked example in the prompt, and a second training view.
    residual: the image stands behind the text's compressed word, which does not see it; a second word behind both adds to the
        fused vector through a projection that starts at zero.
    defaults: dotted settings that it has unless they are set otherwise.
    """

    early: bool
    late: bool
    micl: bool
    text: bool
    summary: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    residual: bool = False

    @property
    def image(self) -> bool:
        return self.early or self.late


WHITENED = {"fusion.name": "whitened", "head.width": None}
SPECS: dict[str, VariantSpec] = {
    "text_only": VariantSpec(False, False, False, True, "the language model alone"),
    "image_only": VariantSpec(True, False, False, False, "visual tokens alone"),
    "basic": VariantSpec(True, False, False, True, "visual tokens in the prompt"),
    "only_late_fusion": VariantSpec(False, True, False, True, "text prompt; the image enters through the gate"),
    "late_early_fusion": VariantSpec(True, True, False, True, "basic + gate"),
    "micl": VariantSpec(True, False, True, True, "the image compressed first, as an in-context example"),
    "notellm2": VariantSpec(True, True, True, True, "mICL + gate: the paper's method"),
    "late_whitened": VariantSpec(
        False,
        True,
        False,
        True,
        "text and image whitened, side by side: late fusion without training, n2kit fit's; not the paper's",
        WHITENED,
    ),
    "joined_whitened": VariantSpec(
        True,
        True,
        False,
        True,
        "late_whitened, and what the language model makes of text and image together, which starts at zero; not the paper's",
        WHITENED,
        residual=True,
    ),
}
