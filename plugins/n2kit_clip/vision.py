"""CLIP's vision tower as n2kit's `VisionEncoder`."""

from torch import Tensor
from transformers import CLIPVisionModel

from n2kit import VisionOut
from n2kit.data.images import CLIP_MEAN, CLIP_STD, ImageTransform
from n2kit_hf.vision import TransformersVision


class ClipVision(TransformersVision):
    """Tokens are the last layer's states before the final norm, CLS first (the reference's "cls_patch")."""

    model_class = CLIPVisionModel
    default_transform = ImageTransform(224, CLIP_MEAN, CLIP_STD, "crop")
    prefix_tokens = 1

    def forward(self, pixels: Tensor) -> VisionOut:
        tokens: Tensor = self.model(pixels.to(self.model.dtype)).last_hidden_state
        return VisionOut(tokens, tokens[:, 0])
