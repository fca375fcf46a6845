"""Facts about a SigLIP checkpoint without torch."""

from n2kit.contract import VisionCard
from n2kit_hf.cards import Locate, VisionConfig
from n2kit_hf.image_cards import vision_card
from n2kit_hf.image_families import HALF, Family

FAMILY = Family(
    "encoder.layers", "vision_model", {"hidden_size": 768, "patch_size": 16}, colours=HALF, tower="SiglipVisionModel"
)
FAMILIES = {"siglip": FAMILY, "siglip_vision_model": FAMILY}


def card(options: VisionConfig, locate: Locate) -> VisionCard:
    """Read the card of the tower in a SigLIP folder, or of `options.config`."""
    return vision_card(options, locate, FAMILIES)
