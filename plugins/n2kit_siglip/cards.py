"""Facts about a SigLIP checkpoint without torch."""

from n2kit import VisionCard
from n2kit_hf.cards import Locate, VisionConfig, vision_card

# What transformers' SiglipVisionConfig takes for keys that a config.json leaves out.
DEFAULTS = {"hidden_size": 768, "image_size": 224, "patch_size": 16}
OTHERS = ("text_model.", "logit_scale", "logit_bias")


def card(options: VisionConfig, locate: Locate) -> VisionCard:
    """The card of the tower in a SigLIP folder, or of `options.config`."""
    return vision_card(
        options,
        locate,
        defaults=DEFAULTS,
        prefix_tokens=0,
        belongs=lambda key: not key.startswith(OTHERS) and not key.endswith("position_ids"),
    )
