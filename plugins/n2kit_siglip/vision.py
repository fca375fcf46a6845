"""SigLIP's vision tower as n2kit's `VisionEncoder`."""

from n2kit_hf.vision import TransformersVision
from n2kit_siglip.cards import FAMILIES


class SiglipVision(TransformersVision):
    """SigLIP's vision tower; all tokens are patches, and the pooled vector is the attention-pool head's, as in its training."""

    families = FAMILIES
