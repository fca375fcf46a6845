"""Facts about a CLIP checkpoint without torch."""

from n2kit import VisionCard
from n2kit_hf.cards import Locate, VisionConfig, vision_card

# What transformers' CLIPVisionConfig takes for keys that a config.json leaves out.
DEFAULTS = {"hidden_size": 768, "image_size": 224, "patch_size": 32}
OTHERS = ("text_model.", "visual_projection", "text_projection", "logit_scale")


def card(options: VisionConfig, locate: Locate) -> VisionCard:
    """The card of the tower in a CLIP folder, or of `options.config`."""
    return vision_card(
        options,
        locate,
        defaults=DEFAULTS,
        prefix_tokens=1,
        belongs=lambda key: not key.startswith(OTHERS) and not key.endswith("position_ids"),
    )
