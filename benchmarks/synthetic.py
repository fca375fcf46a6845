"""A catalogue for the benchmarks: photographs of noise, texts of very different lengths, items that stand in several pairs."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import n2kit
import n2kit.recipe.variants
from n2kit import Item
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.modeling.model import Model

WORDS = (
    "red",
    "blue",
    "small",
    "large",
    "cotton",
    "summer",
    "light",
    "shoe",
    "lamp",
    "garden",
    "travel",
    "paper",
    "cheap",
)
PHOTO = (640, 480)
LARGEST = 120  # words of a text; the median has a fifth of them


def make_catalogue(folder: Path, items: int, seed: int = 0) -> Items:
    """Items whose text lengths are log-normal, as of real catalogues; their pictures are written into `folder`."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    made = []
    for n in range(items):
        coarse = Image.fromarray(noise.integers(0, 255, (24, 32, 3), dtype=np.uint8))
        coarse.resize(PHOTO).save(folder / f"{n}.jpg", quality=85)
        length = min(LARGEST, max(2, round(rng.lognormvariate(3.1, 0.8))))
        made.append(Item(f"i{n}", f"{n}.jpg", f"thing {n}", content=" ".join(rng.choices(WORDS, k=length))))
    return Items(made)


def make_pairs(items: Items, count: int, seed: int = 0) -> Pairs:
    """Different pairs; some items are in many, as they are in the histories of users."""
    rng, ids = random.Random(seed), [i.id for i in items]
    weights = [1 / (n + 1) ** 0.5 for n in range(len(ids))]
    pairs: dict[tuple[str, str], None] = {}
    while len(pairs) < count:
        a, b = rng.choices(ids, weights, k=2)
        if a != b and (b, a) not in pairs:
            pairs[a, b] = None
    return Pairs(list(pairs))


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--llm", default="qwen:tiny", help="as n2kit build takes it, file:FOLDER for instance")
    parser.add_argument("--vision", default="siglip:tiny")
    parser.add_argument("--connector", default="mlp:4")
    parser.add_argument("--variant", default="notellm2")
    parser.add_argument("--tune", default="full", help="of the LLM: frozen, last:K, lora:R, full")
    parser.add_argument("--template", default="en", help="prompt template")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, and nothing else")


def add_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--items", type=Path, help="a catalogue's items; by default one is made")
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--images", type=Path)


def catalogue(options: argparse.Namespace, folder: Path) -> tuple[Items, Pairs, Path]:
    """The catalogue that was asked for, or 96 items and 128 pairs, with their pictures in `folder`."""
    if options.items is not None:
        items = n2kit.read_items(options.items)
        return items, n2kit.read_pairs(options.pairs, items), options.images
    images = folder / "images"
    images.mkdir()
    items = make_catalogue(images, 96)
    return items, make_pairs(items, 128), images


def build_model(options: argparse.Namespace) -> Model:
    """The joined model, in float32, its vision encoder frozen, its LLM trained as `options.tune` says."""
    settings = {
        "llm.tune": options.tune,
        "vision.tune": "frozen",
        "head.width": 64,
        "prompt.template": options.template,
    }
    early = n2kit.recipe.variants.SPECS[options.variant].early
    model = n2kit.build(
        options.llm, options.vision, connector=options.connector if early else None, variant=options.variant, settings=settings
    )  # fmt: skip
    model.prepare_for(torch.float32)
    return model.train()
