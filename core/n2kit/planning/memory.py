"""An estimate, from cards, of the device memory that a training takes; no torch."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass, replace
from typing import Any

from n2kit.planning.plan import Plan, PlanRow
from n2kit.recipe.tuning import Tune, blocks_of

GB = 1e9
FLOAT = 4  # bytes: trained weights, their gradients and AdamW's two moments are float32
# Bytes that a transformer layer keeps for the backward pass, for each token and each unit of width (cf. arXiv 2205.05198,
# section 4.1; attention keeps no score matrix). Measured with saved_tensors_hooks: SmolLM2-135M 78 in fp32 and 53 in bf16,
# Qwen2.5-0.5B, whose feed-forward layers are twice as wide, 120 and 75.
KEPT = {"bf16": 64, "fp32": 100}
PACKED = 4.5 / 8  # 4 bits, and a scale of 32 for each 64 of them
COPY = {"bf16": 2, "fp32": 0}  # autocast keeps a copy of the weights of a step


@dataclass(frozen=True)
class Memory:
    """Memory of a training, in bytes. `certain` is exact; `activations` is an estimate for `batch_size` pairs of longest rows."""

    weights: float
    gradients: float
    optimiser: float
    activations: float
    batch_size: int
    precision: str

    @property
    def certain(self) -> float:
        return self.weights + self.gradients + self.optimiser

    @property
    def total(self) -> float:
        return self.certain + self.activations

    def to_dict(self) -> dict[str, Any]:
        facts = {k: round(v / GB, 3) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return facts | {"total": round(self.total / GB, 3), "unit": "GB"}


def estimate(plan: Plan) -> Memory:
    """Estimate the memory of a training by the plan's recipe."""
    settings = plan.recipe.train
    precision = "fp32" if settings.precision == "fp32" else "bf16"
    return Memory(
        weights=float(sum(_weights(plan, row, precision) for row in plan.rows)),
        gradients=float(plan.trainable * FLOAT),
        optimiser=float(plan.trainable * FLOAT * 2),
        activations=float(2 * settings.batch_size * _per_item(plan, precision)),
        batch_size=settings.batch_size,
        precision=precision,
    )


def _weights(plan: Plan, row: PlanRow, precision: str) -> float:
    """Return the bytes of a part's weights; under `qlora`, an LLM's blocks are held in 4 bits."""
    if row.part != "llm" or not plan.recipe.llm.tune.startswith("qlora"):
        return row.parameters * _bytes(row, precision)
    table = plan.llm.vocab * plan.llm.input_width
    return (row.parameters - table) * PACKED + table * FLOAT


def _bytes(row: PlanRow, precision: str) -> int:
    """Return the bytes of one weight.

    A frozen part keeps its checkpoint's own width (16 bits, as published) where training is in bf16.
    """
    if row.trainable or precision == "fp32":
        return FLOAT + COPY[precision]
    return FLOAT if row.weights == "random" else FLOAT // 2


def certain_with_frozen_llm(plan: Plan) -> float:
    """Return `certain` of the same plan with a frozen LLM."""
    use = estimate(plan)
    row = next(r for r in plan.rows if r.part == "llm")
    frozen = replace(row, trainable=0)
    return (
        use.certain
        - 3 * FLOAT * row.trainable
        - row.parameters * (_bytes(row, use.precision) - _bytes(frozen, use.precision))
    )


def _per_item(plan: Plan, precision: str) -> float:
    """Estimate the bytes that one item's forward pass keeps; a frozen vision encoder keeps nothing."""
    llm, vision = plan.llm, plan.vision

    def kept(layers: float) -> float:
        """Return the bytes for each token and unit of width: of all layers, or of one of them and every layer's input."""
        full = KEPT[precision]
        return FLOAT * layers + full if plan.recipe.train.checkpointing else full * layers

    found = plan.longest * llm.output_width * kept(llm.layers)
    tune = Tune.parse(plan.recipe.vision.tune)
    if vision is not None and tune.mode != "frozen":
        layers = min(blocks_of(vision), tune.number if tune.mode == "last" else math.inf)
        found += vision.tokens * vision.token_width * kept(layers)
    return int(found)


def batch_that_fits(plan: Plan, memory: float) -> int:
    """Return the largest batch size that fits, in pairs; 0 where not even 2 do, the fewest that training takes."""
    use = estimate(plan)
    most = int((memory - use.certain) * use.batch_size / use.activations)
    return most if most >= 2 else 0


def device_memory(device: str | None = None) -> tuple[float, str]:
    """Return the bytes of the device that would train here (the first GPU, else main memory), and its name."""
    if shutil.which("nvidia-smi") and (device or "cuda").startswith("cuda"):
        command = ["nvidia-smi", "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        size, comma, name = found.stdout.partition("\n")[0].partition(", ")
        if found.returncode == 0 and comma and size.isdigit():
            return float(int(size) * 1024**2), name
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), "main memory"
