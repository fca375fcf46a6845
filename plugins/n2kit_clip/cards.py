"""Facts about a CLIP checkpoint without torch."""

from n2kit.contract import VisionCard
from n2kit_hf.cards import Locate, VisionConfig
from n2kit_hf.image_cards import vision_card
from n2kit_hf.image_families import CLIP, Family

# Its `pooler_output` goes through the final norm, its tokens do not: the paper reads CLS as it stands among the tokens.
FAMILY = Family(
    "encoder.layers", "vision_model", {"hidden_size": 768, "patch_size": 32}, prefix=1, pooler=False, fallback="first",
    colours=CLIP, tower="CLIPVisionModel",
)  # fmt: skip
FAMILIES = {"clip": FAMILY, "clip_vision_model": FAMILY}


def card(options: VisionConfig, locate: Locate) -> VisionCard:
    """Read the card of the tower in a CLIP folder, or of `options.config`."""
    return vision_card(options, locate, FAMILIES)
