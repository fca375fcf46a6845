"""Cells of a tiny matrix, and what their tests share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from n2kit.bench.matrix.cell import Cell
from n2kit.bench.matrix.expand import expand
from n2kit.bench.matrix.presets import filled
from n2kit.bench.matrix.spec import MatrixSpec

NAMES = ("items", "images", "pairs", "val_pairs", "test_pairs", "pool", "on_bad_image")
DATA: dict[str, str | None] = dict.fromkeys(NAMES, "same")
TINY = {"llm": "qwen:tiny", "vision": "siglip:tiny", "connector": "qformer:4"}
CONFIG = {
    "model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64, "vocab_size": 100, "max_position_embeddings": 512,
}  # fmt: skip


def cells(data: dict[str, str | None] = DATA, **matrix: Any) -> list[Cell]:
    return expand(filled(MatrixSpec.model_validate(TINY | matrix)), data)


def checkpoint(folder: Path, value: int) -> None:
    """Write the files of a language model that a plan reads."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({"model.embed_tokens.weight": np.full((100, 32), value, np.float32)}, folder / "model.safetensors")


def arms(found: list[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.arm for cell in found))
