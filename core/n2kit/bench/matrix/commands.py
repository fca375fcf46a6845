"""The commands that reproduce a cell without the bench."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from n2kit.bench.matrix.cell import Cell
from n2kit.bench.matrix.spec import AXES, Inference, MatrixSpec
from n2kit.contract.kinds import CHOICES
from n2kit.recipe.settings import Recipe

REMOVED_INPUT: dict[Inference, Literal["image", "text"]] = {"no-image": "image", "no-text": "text"}


def commands(cell: Cell, matrix: MatrixSpec, root: Path) -> str:
    """Write the commands of a cell: build; train; embed; eval, with every setting that is not a default. A baseline's is a bench of it."""
    if cell.baseline is not None or cell.recipe is None:
        return shlex.join(["n2kit", "bench", str(root / "matrix.yaml"), "--only", cell.key, "-o", f"bench/{cell.key}"])
    start, run, vectors = f"models/{cell.key}", f"runs/{cell.key}", f"{cell.key}.parquet"
    images = matrix.images or matrix.fetch_images
    items = ["--items", str(matrix.items)] + (["--images", str(images)] if images else [])
    items += ["--format", matrix.format] if matrix.format != "auto" else []
    items += [part for key, column in matrix.map.items() for part in ("--map", f"{key}={column}")]
    lenient = ["--lenient"] if matrix.lenient else []
    bad = ["--on-bad-image", matrix.on_bad_image] if matrix.on_bad_image != "error" else []
    lines = [["n2kit", "build", *_chosen(cell), "-o", start]]
    if cell.trained:
        val = ["--val-pairs", str(matrix.val_pairs)] if matrix.val_pairs else []
        lines.append(["n2kit", "train", start, *items, "--pairs", str(matrix.pairs), *val, *lenient, *bad, "-o", run])
    bundle = f"{run}/bundle" if cell.trained else start
    without = ["--without", REMOVED_INPUT[cell.inference]] if cell.inference != "both" else []
    precision = ["--precision", cell.recipe.train.precision]
    lines.append(["n2kit", "embed", bundle, *items, *without, *lenient, *bad, *precision, "-o", vectors])
    pool = ["--pool", str(matrix.pool)] if matrix.pool else []
    pool += ["--protocol", matrix.protocol] if matrix.protocol != "notellm2" else []
    ks = ["--k", ",".join(map(str, matrix.ks)), *(part for name in matrix.metrics for part in ("--metric", name))]
    absent = ["--lenient"] if matrix.lenient or matrix.on_bad_image == "skip" else []  # pairs of items without a vector
    lines.append(
        ["n2kit", "eval", "--vectors", vectors, "--pairs", str(matrix.test_pairs), *pool, *ks, *absent,
         "--bootstrap", str(matrix.bootstrap)]
    )  # fmt: skip
    return "; ".join(map(shlex.join, lines))


def _chosen(cell: Cell) -> Iterator[str]:
    """Yield the recipe as flags of n2kit build."""
    assert cell.recipe is not None
    axes, recipe, default = cell.axes, cell.recipe.model_dump(), Recipe().model_dump()
    for axis in AXES:
        if axes.get(axis):
            yield from (f"--{axis}", axes[axis])
    for section, values in recipe.items():
        if section == "variant":
            continue
        if section in CHOICES and not axes.get(section):
            # Of a multimodal LLM's parts, how they are tuned; of one that is not used, nothing.
            values = {"tune": values["tune"]} if axes.get("mllm") and values and "tune" in values else {}
        if not isinstance(values, Mapping):
            if values != default[section]:
                yield from ("--set", f"{section}={json.dumps(values)}")
            continue
        base = default[section] or {}
        for key, value in values.items():
            if key != "name" and value != base.get(key):
                yield from ("--set", f"{section}.{key}={json.dumps(value)}")
