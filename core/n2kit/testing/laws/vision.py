"""Laws of vision encoders."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image

from n2kit.testing.laws import law
from n2kit.testing.laws.compare import differ
from n2kit.testing.under_test import VisionUnderTest


@law("vision")
def shapes_are_those_of_the_card(under_test: VisionUnderTest) -> None:
    """tokens [I, N, Dv], pooled [I, Dp] (none where the card says 0), mask [I, N] bool or None; all finite."""
    card = under_test.part.card
    with torch.no_grad():
        out = under_test.part(*under_test.inputs(2))
    want = (2, card.tokens, card.token_width)
    assert tuple(out.tokens.shape) == want, f"tokens have shape {list(out.tokens.shape)}, the card says {list(want)}"
    if card.pooled_width:
        assert out.pooled is not None, f"there is no pooled vector, the card says {card.pooled_width} wide"
        assert tuple(out.pooled.shape) == (2, card.pooled_width), f"pooled has shape {list(out.pooled.shape)}"
        assert out.pooled.isfinite().all(), "pooled is not finite"
    else:
        assert out.pooled is None, "there is a pooled vector, the card says none"
    if out.mask is not None:
        assert out.mask.dtype == torch.bool, f"the mask is {out.mask.dtype}"
        assert tuple(out.mask.shape) == want[:2], f"the mask has shape {list(out.mask.shape)}"
    assert out.tokens.isfinite().all(), "tokens are not finite"


@law("vision")
def the_image_matters(under_test: VisionUnderTest) -> None:
    """Another picture gives other tokens and another pooled vector."""
    with torch.no_grad():
        out = under_test.part(*under_test.inputs(2))
    differ(out.tokens[0], out.tokens[1], "tokens of two pictures")
    if out.pooled is not None:
        differ(out.pooled[0], out.pooled[1], "pooled vectors of two pictures")


@law("vision")
def the_transform_takes_any_image(under_test: VisionUnderTest) -> None:
    """RGB of any size, one pixel included → float [3, H, W] of the card's size; the same picture, the same pixels."""
    size = under_test.part.card.image_size
    pictures = [*under_test.images(4), Image.new("RGB", (1, 1), (9, 99, 199)), Image.new("RGB", (500, 3))]
    for image in pictures:
        pixels = under_test.part.transform(image)
        what = f"a picture of {image.size[0]} × {image.size[1]}"
        assert pixels.is_floating_point(), f"{what}: pixels are {pixels.dtype}"
        assert tuple(pixels.shape) == (3, size, size), f"{what} becomes {list(pixels.shape)}, the card says {size} px"
        assert pixels.isfinite().all(), f"{what}: pixels are not finite"
        assert pixels.equal(under_test.part.transform(image)), f"{what}: a second look gives other pixels"
    assert under_test.part.transform_id == under_test.new().transform_id, "transform_id is not stable"
    assert under_test.part.transform_id, "transform_id is empty"
    assert under_test.part.settings_id == under_test.new().settings_id, "settings_id is not stable"


@law("vision")
def prefix_tokens_come_before_a_grid(under_test: VisionUnderTest) -> None:
    """The tokens after `prefix_tokens` are a square grid, unless no count of them makes one."""
    card = under_test.part.card
    assert 0 <= card.prefix_tokens < card.tokens, f"{card.prefix_tokens} of {card.tokens} tokens are said to be prefix"
    better = next((n for n in (0, 1) if replace(card, prefix_tokens=n).grid), None)
    if card.grid is None and better is not None:
        raise AssertionError(
            f"behind {card.prefix_tokens} prefix tokens there is no square; behind {better} there is one"
        )
