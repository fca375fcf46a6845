"""Images are decoded in one loop, and what is written in files keeps its names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import n2kit
from n2kit import Item
from n2kit.data.images import UnreadableImage
from n2kit.inputs.reader import Reader, iter_pixels
from n2kit.modeling.model import Model

ITEMS = [
    Item("a", "one.png", "x"),
    Item("b", "broken.png", "y"),
    Item("c", "", "z"),
    Item("d", "one.png", "w"),
    Item("e", "broken.png", "v"),
]


@pytest.fixture(scope="module")
def model() -> Model:
    return n2kit.build("qwen:tiny", "siglip:tiny", connector="mlp:4", variant="basic").eval()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8), (200, 30, 30)).save(tmp_path / "one.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    return tmp_path


def test_each_image_is_decoded_once_and_each_broken_one_tried_once(model: Model, images: Path) -> None:
    vision: Any = model.vision
    unreadable: dict[str, str] = {}
    found = dict(iter_pixels(ITEMS, vision, images, policy="skip", unreadable=unreadable))
    assert {path: tuple(pixels.shape) for path, pixels in found.items()} == {
        "one.png": (3, vision.card.image_size, vision.card.image_size)
    }
    assert unreadable.keys() == {"broken.png"}
    assert unreadable["broken.png"].startswith("item 'b': image 'broken.png'")
    (images / "broken.png").unlink()
    assert not dict(iter_pixels(ITEMS[1:2], vision, images, policy="skip", unreadable=unreadable))
    assert "no such file" not in unreadable["broken.png"]
    with pytest.raises(UnreadableImage, match="item 'b'"):
        list(iter_pixels(ITEMS, vision, images))


@pytest.mark.parametrize(("policy", "kept"), [("skip", [0, 2, 3]), ("text-only", [0, 1, 2, 3, 4])])
def test_every_item_of_a_broken_image_is_counted(model: Model, images: Path, policy: Any, kept: list[int]) -> None:
    reader = Reader(model.prompt_builder, model.vision, images, policy)
    batch, positions = reader(ITEMS)
    assert positions == kept
    assert batch is not None
    assert batch.image_owner.tolist() == [kept.index(0), kept.index(3)]
    assert list(reader.bad) == ["b", "e"]
    assert reader.bad["e"] == "item 'e': image 'broken.png' cannot be read"


def test_extra_inputs_are_those_that_a_model_names(model: Model) -> None:
    mask = torch.ones(2, 5, dtype=torch.bool)
    assert model.llm.extras(mask) == {}
    both_ways = n2kit.build("bert:tiny", "siglip:tiny", variant="basic").llm
    assert both_ways.extras(mask).keys() == {"mask"}


def test_a_bundle_keeps_the_names_of_its_tensors(model: Model, tmp_path: Path) -> None:
    """The first bundles have them: `gain` is the connector's scale, `words` the special tokens."""
    model.save(tmp_path / "bundle")
    assert load_file(tmp_path / "bundle" / "joint.safetensors").keys() == {"gain", "words", "head"}
