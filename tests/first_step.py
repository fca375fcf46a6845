"""The gradients of a tiny model's first step, for tests of what runs a step in another way."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor, nn

import n2kit
from n2kit import Item
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.inputs.reader import Reader
from n2kit.modeling.model import Model
from n2kit.recipe.settings import Train
from n2kit.train.blocks import prepared_blocks
from n2kit.train.pairs import PairCollator
from n2kit.train.step import TrainStep

ITEMS = Items([Item(f"p{n}", f"noto_{n}.png", f"thing {n}" + " and so on" * n) for n in range(1, 9)])
PAIRS = Pairs([(f"p{n}", f"p{n + 4}") for n in range(1, 5)])


def make(tune: str = "full", llm: str = "qwen:tiny", vision: str = "frozen") -> Model:
    settings = {"head.width": 16, "llm.tune": tune, "vision.tune": vision}
    made = n2kit.build(llm, "siglip:tiny", connector="mlp:4", settings=settings)
    made.prepare_for(torch.float32)
    return made.train()


def gradients(model: Model, images: Path, settings: Train, chunk: int | None = None) -> dict[str, Tensor]:
    inputs = PairCollator(ITEMS, PAIRS, Reader(model.prompt_builder, model.vision, images))(list(PAIRS))
    torch.manual_seed(0)  # of dropout
    step = TrainStep(model, torch.float32, chunk)
    step.zero_grad()
    with prepared_blocks(model, settings):
        loss = step(**{name: inputs[name] for name in ("batch", "item_index", "exclude")})["loss"]
        loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def compiled_and_plain(images: Path, backend: str) -> dict[str, tuple[Tensor, Tensor]]:
    """The gradients of blocks that this backend of torch.compile has compiled, and of the same blocks as they are."""
    torch.set_num_threads(1)
    nn.Module.compile = functools.partialmethod(nn.Module.compile, backend=backend)  # type: ignore[assignment]
    model = make("full")
    plain, compiled = (gradients(model, images, Train(compile=on)) for on in (False, True))
    assert plain.keys() == compiled.keys()
    return {name: (compiled[name], want) for name, want in plain.items()}
