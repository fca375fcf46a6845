"""SigLIP's vision tower as n2kit's `VisionEncoder`."""

from torch import Tensor
from transformers import SiglipVisionModel

from n2kit import VisionOut
from n2kit.data.images import ImageTransform
from n2kit_hf.vision import TransformersVision


class SiglipVision(TransformersVision):
    """All tokens are patches; the pooled vector is the attention-pool head's, as the family was trained."""

    model_class = SiglipVisionModel
    default_transform = ImageTransform(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "squash")
    prefix_tokens = 0

    def forward(self, pixels: Tensor) -> VisionOut:
        out = self.model(pixels.to(self.model.dtype))
        return VisionOut(out.last_hidden_state, out.pooler_output)
