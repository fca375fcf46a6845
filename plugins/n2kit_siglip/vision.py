"""SigLIP's vision tower as n2kit's `VisionEncoder`."""

from n2kit_hf.vision import TransformersVision
from n2kit_siglip.cards import FAMILIES


class SiglipVision(TransformersVision):
    """All tokens are patches; the pooled vector is the attention-pool head's, as the family was trained."""

    families = FAMILIES
