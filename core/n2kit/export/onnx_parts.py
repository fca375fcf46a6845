"""The vision encoder and the way from a hidden state to the vector, as ONNX."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.bundle.io import load
from n2kit.bundle.manifest import read_manifest
from n2kit.contract.interfaces import VisionOut
from n2kit.errors import BadInput, Failed
from n2kit.export.folders import exported
from n2kit.modeling.model import Model
from n2kit.utils.folders import bundle_folder

VISION, HEAD = "vision.onnx", "head.onnx"
TOLERANCE = 1e-4
BATCH = 3  # of the check; files take any number


class Vision(nn.Module):
    """Pixels [I, 3, H, W] to tokens [I, N, Dv] and, where the encoder has one, a pooled vector [I, Dp]."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        assert model.vision is not None
        self.vision = model.vision

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        out = self.vision(pixels)
        return (out.tokens,) if out.pooled is None else (out.tokens, out.pooled)


class Head(nn.Module):
    """A hidden state [B, Dh] and what the fusion takes of an item's image to the unit vector [B, D].

    inputs: the names of what `forward` takes, in order: hidden, and with a fusion pooled [B, Dp], tokens [B, N, Dv] and mask [B, N] as
    the vision encoder gives them and the fusion reads them, has_image [B] and has_text [B]. Rows without an image may hold anything
    in place of it.
    """

    def __init__(self, model: Model, inputs: Sequence[str]) -> None:
        super().__init__()
        self.fusion, self.head, self.inputs = model.fusion, model.head, tuple(inputs)

    def forward(self, *given: Tensor) -> Tensor:
        known: dict[str, Tensor | None] = dict(zip(self.inputs, given, strict=True))
        word = given[0]
        if self.fusion is not None and "has_image" in known:
            extras = {name: known.get(name) for name in self.fusion.extra_inputs}
            fused = self.fusion(word, known.get("pooled"), **extras)
            has_image = known["has_image"]
            assert has_image is not None
            word = fused if "has_image" in self.fusion.extra_inputs else torch.where(has_image[:, None], fused, word)
        return F.normalize(self.head(word).float(), dim=-1)


def write(source: Path, out: Path, *, force: bool = False, **_: Any) -> dict[str, Any]:
    """Write vision.onnx, where the model sees, and head.onnx; both are run, and give what the model gives.

    The language model is not exported: serve it by `n2kit serve`, or with a runtime of its own.

    Raises:
        BadInput: no bundle, or a part that cannot be exported. Failed: what ONNX Runtime computes differs.
    """
    folder = bundle_folder(source)
    model = load(folder).float().eval()
    facts: dict[str, Any] = {"fingerprint": read_manifest(folder).fingerprint, "width": model.width}
    generator = torch.Generator().manual_seed(0)
    with exported(out, force, facts) as staged:
        differences: dict[str, float] = {}
        given = {"hidden": torch.randn(BATCH, model.llm.card.output_width, generator=generator)}
        if model.vision is not None:
            pixels = torch.randn(BATCH, *_pixels(model), generator=generator)
            with torch.no_grad():
                seen = model.vision(pixels)
            names = ["tokens", *["pooled"] * (seen.pooled is not None)]
            differences[VISION] = _export(Vision(model), {"pixels": pixels}, names, staged / VISION)
            given |= _of_image(model, seen)
        differences[HEAD] = _export(Head(model, list(given)), given, ["vector"], staged / HEAD)
        facts |= {"largest_difference": differences, "inputs": {HEAD: {n: list(t.shape[1:]) for n, t in given.items()}}}
        (staged / "README.md").write_text(_readme(facts), encoding="utf8")
    return {"largest_difference": differences}


def _of_image(model: Model, seen: VisionOut) -> dict[str, Tensor]:
    """Make what the head takes besides the hidden state: what its fusion reads of the image, and who has one."""
    if model.fusion is None:
        return {}
    reads = model.fusion.extra_inputs
    found = {
        "pooled": seen.pooled,
        "tokens": seen.tokens if "tokens" in reads else None,
        "mask": seen.mask if "mask" in reads else None,
    }
    if found["pooled"] is not None and "has_image" in reads:
        found["tokens"] = found["mask"] = None  # in whose place it stands
    made = {name: tensor for name, tensor in found.items() if tensor is not None}
    made["has_image"] = torch.tensor([True, False, True])
    return made | ({"has_text": torch.tensor([True, True, False])} if "has_text" in reads else {})


def _pixels(model: Model) -> tuple[int, ...]:
    """Find the shape of an image's pixels by transforming one: (3, H, W)."""
    from PIL import Image

    assert model.vision is not None
    return tuple(model.vision.transform(Image.new("RGB", (64, 48))).shape)


def _export(module: nn.Module, given: dict[str, Tensor], outputs: list[str], file: Path) -> float:
    """Export a module with a free first dimension, run it on another number of rows, and return the largest difference.

    Raises:
        BadInput: it cannot be exported. Failed: the difference is more than rounding.
    """
    module.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, tuple(given.values()), str(file), input_names=list(given), output_names=outputs,
                dynamic_shapes=_shapes(module, len(given)), dynamo=True, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as problem:
        reason = str(problem).strip().partition("\n")[0][:200]
        raise BadInput(
            f"{file.name} cannot be made of this model: {type(problem).__name__}: {reason}", "another vision encoder"
        ) from None
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rows = {name: torch.cat([t, t[:2].flip(0)]) for name, t in given.items()}
    with torch.no_grad():
        wanted = module(*rows.values())
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    found = session.run(None, {name: t.numpy() for name, t in rows.items()})
    largest = max(float(np.abs(f - w.numpy()).max()) for f, w in zip(found, wanted, strict=True))
    if not largest < TOLERANCE:
        raise Failed(f"{file.name} computes what the model does not: it differs by {largest:.2g}", "it was not written")
    return largest


def _shapes(module: nn.Module, inputs: int) -> tuple[Any, ...]:
    """Say that the first dimension of every input is free, in the form that the signature of `forward` asks for."""
    free = tuple({0: torch.export.Dim("batch")} for _ in range(inputs))
    return (free,) if isinstance(module, Head) else free


def _readme(facts: dict[str, Any]) -> str:
    inputs = ", ".join(
        f"{name} [{', '.join(['B', *map(str, shape)])}]" for name, shape in facts["inputs"][HEAD].items()
    )
    return (
        f"# ONNX of n2kit model {facts['fingerprint']}\n\n- `{VISION}`: pixels [I, 3, H, W] → tokens [I, N, Dv], pooled [I, Dp].\n"
        f"- `{HEAD}`: {inputs} → the unit vector [B, {facts['width']}]. In rows without an image, the image's part may be anything.\n\n"
        f"The language model in between is not here.\n\n```json\n{json.dumps(facts, indent=1)}\n```\n"
    )
