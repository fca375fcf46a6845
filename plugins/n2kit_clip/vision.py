"""CLIP's vision tower as n2kit's `VisionEncoder`."""

from n2kit_clip.cards import FAMILIES
from n2kit_hf.vision import TransformersVision


class ClipVision(TransformersVision):
    """CLIP's vision tower; its tokens are the last layer's states before the final norm, CLS first (the reference's "cls_patch")."""

    families = FAMILIES
