"""Images of every format that is read: decoded to RGB, or refused with the item's id and a reason."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzz import law
from fuzz.mutations import mutated
from n2kit.data.image_digests import images_digest
from n2kit.data.images import FORMATS, UnreadableImage, check_image, open_image
from n2kit.data.items import Item

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # as n2kit does; pytest undoes it
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F")


def drawn() -> list[bytes]:
    """Draw a picture in every mode that each format can hold, some of them with an orientation or several frames."""
    pixels = np.arange(9 * 7 * 3, dtype=np.uint8).reshape(7, 9, 3)
    found = []
    for name in FORMATS:
        for mode in MODES:
            file = io.BytesIO()
            exif = Image.Exif()
            exif[0x0112] = 6
            try:
                picture = Image.fromarray(pixels)
                picture = picture.convert("I").convert(mode) if mode.startswith("I;") else picture.convert(mode)
                picture.save(file, name, **({"exif": exif} if name in ("JPEG", "PNG", "WEBP") else {}))
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode
            found.append(file.getvalue())
    animated = io.BytesIO()
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:], transparency=0)
    return [*found, animated.getvalue()]


@given(content=mutated(drawn()))
def test_a_damaged_image_is_decoded_or_refused_with_its_item(content: bytes, ground: Path) -> None:
    (ground / "image").write_bytes(content)
    item = Item("the id", image="image")
    opened = law.read(lambda: open_image(item, ground), "the id")
    if not isinstance(opened, UnreadableImage):
        assert isinstance(opened, Image.Image)
        assert opened.mode == "RGB"
        assert min(opened.size) > 0
        law.read(lambda: check_image(item, ground))
    assert sorted(p.name for p in ground.iterdir() if p.name.startswith("image")) == ["image"]


@given(
    name=st.one_of(
        st.text(max_size=8),
        st.sampled_from(
            [
                "../x",
                "/etc/passwd",
                ".",
                "",
                "a/../../x",
                "\x00",
                "a" * 5000,
                "~",
                "\ud800",
                "image/x",
                "//",
                "loop",
                "pipe",
            ]
        ),
    )
)
def test_an_image_of_any_name_is_opened_or_refused_with_its_item(name: str, ground: Path) -> None:
    if not (ground / "loop").is_symlink():
        (ground / "loop").symlink_to("loop")
        os.mkfifo(ground / "pipe")
    item = Item("the id", image=name)
    law.read(lambda: open_image(item, ground), "the id")
    with law.no_hang():
        assert images_digest([item], ground)
