"""An estimate, from cards, of the device memory that a training takes; no torch."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from n2kit.planning.plan import Plan, PlanRow
from n2kit.recipe.tuning import Tune, blocks_of
from n2kit.utils.files import read_json

GB = 1e9
FLOAT = 4  # bytes: trained weights, their gradients and AdamW's two moments are float32
# Bytes that a transformer layer keeps for the backward pass, for each token and each unit of width (cf. arXiv 2205.05198,
# section 4.1; attention keeps no score matrix). Measured with saved_tensors_hooks: SmolLM2-135M 78 in fp32 and 53 in bf16,
# Qwen2.5-0.5B, whose feed-forward layers are twice as wide, 120 and 75.
KEPT = {"bf16": 64, "fp32": 100}
PACKED = 4.5 / 8  # 4 bits, and a scale of 32 for each 64 of them
COPY = {"bf16": 2, "fp32": 0}  # autocast keeps a copy of the trained weights, for a step
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


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
    settings, precision = plan.recipe.train, precision_of(plan)
    return Memory(
        weights=float(sum(_weights(plan, row) for row in plan.rows)),
        gradients=float(plan.trainable * FLOAT),
        optimiser=float(plan.trainable * FLOAT * 2),
        activations=_activations(plan, 2 * settings.batch_size),
        batch_size=settings.batch_size,
        precision=precision,
    )


def precision_of(plan: Plan) -> str:
    """Return what training computes in; `auto` takes bf16 wherever that is faster, as it is on every GPU of today."""
    return "fp32" if plan.recipe.train.precision == "fp32" else "bf16"


def _weights(plan: Plan, row: PlanRow) -> float:
    """Return the bytes of a part's weights in training.

    Trained ones are float32, and autocast keeps a copy of them. What a frozen part or an adapter's base holds stays as it was
    loaded, unless all is computed in float32; `last:K` turns its whole part into float32; `qlora` holds the LLM's blocks in 4 bits.
    """
    precision = precision_of(plan)
    loaded = FLOAT if precision == "fp32" else loaded_bytes(plan, row)
    mode = tune_of(plan, row.part).mode
    trained = row.trainable * (FLOAT + COPY[precision])
    if mode == "full":
        return trained + (row.parameters - row.trainable) * loaded
    if mode == "last":
        return row.parameters * FLOAT + row.trainable * COPY[precision]
    if mode == "qlora":
        table = plan.llm.vocab * plan.llm.input_width
        return trained + (row.parameters - table) * PACKED + table * loaded
    return trained + row.parameters * loaded


def tune_of(plan: Plan, part: str) -> Tune:
    """Return how a part is tuned; parts without such a setting are trained."""
    return Tune.parse(getattr(getattr(plan.recipe, part, None), "tune", "full"))


def loaded_bytes(plan: Plan, row: PlanRow) -> int:
    """Return the bytes of a weight as a part is loaded: by its `dtype`, its folder's configuration, or as its kind is published.

    Causal and multimodal language models are published in 16 bits, encoders of images and of text in 32. Random weights have 32.
    """
    if row.weights == "random":
        return FLOAT
    component = plan.components.get(row.part) or plan.components["mllm"]
    said = getattr(component.config(), "dtype", "auto")
    if said == "auto" and component.weights.scheme == "file":
        config = Path(component.weights.location).expanduser() / "config.json"
        facts = read_json(config) if config.is_file() else {}
        said = str(facts.get("dtype") or facts.get("torch_dtype") or "auto")
    if said in BYTES:
        return BYTES[said]
    return FLOAT // 2 if component.kind == "mllm" or (row.part == "llm" and plan.llm.causal) else FLOAT


def _activations(plan: Plan, items: int) -> float:
    """Estimate the bytes that a step over so many items keeps; GradCache keeps the graph of a few, and the inputs of all."""
    at_once = min(items, plan.recipe.train.grad_cache or items)
    return float(at_once * _graph(plan) + items * _inputs(plan))


def _graph(plan: Plan) -> int:
    """Estimate the bytes that one item's forward pass keeps for the backward pass; a frozen vision encoder keeps nothing."""
    llm, vision, precision = plan.llm, plan.vision, precision_of(plan)

    def kept(layers: float) -> float:
        """Return the bytes for each token and unit of width: of all layers, or of one of them and every layer's input."""
        full = KEPT[precision]
        return FLOAT * layers + full if plan.recipe.train.checkpointing else full * layers

    found = plan.longest * llm.output_width * kept(llm.layers) if backward_through_llm(plan) else 0.0
    tune = tune_of(plan, "vision")
    if vision is not None and tune.mode != "frozen":
        layers = min(blocks_of(vision), tune.number if tune.mode == "last" else math.inf)
        found += vision.tokens * vision.token_width * kept(layers)
    return int(found)


def backward_through_llm(plan: Plan) -> bool:
    """Tell whether gradients go through the LLM: it is trained, or visual tokens in its prompt are."""
    return tune_of(plan, "llm").mode != "frozen" or plan.connector is not None


def _inputs(plan: Plan) -> int:
    """Return the bytes that one item's input takes: the pixels, or what a frozen encoder makes of them; a frozen LLM's state."""
    llm, vision = plan.llm, plan.vision
    found = 0 if backward_through_llm(plan) else llm.output_width * FLOAT
    if vision is None:
        return found
    if tune_of(plan, "vision").mode != "frozen":
        return found + 3 * vision.image_size**2 * FLOAT
    return found + (vision.tokens * vision.token_width + vision.pooled_width) * FLOAT


def batch_that_fits(plan: Plan, memory: float) -> int:
    """Return the largest batch size that fits, in pairs; 0 where not even 2 do, the fewest that training takes."""
    room, graph, inputs = memory - estimate(plan).certain, _graph(plan), _inputs(plan)
    most = int(room / max(1, graph + inputs))
    few = plan.recipe.train.grad_cache
    if few and most >= few:
        most = int((room - few * graph) / max(1, inputs))
    return most // 2 if most >= 4 else 0


def device_memory(device: str | None = None) -> tuple[float, str]:
    """Return the bytes of the device that would train here (the first GPU, else main memory), and its name."""
    if shutil.which("nvidia-smi") and (device or "cuda").startswith("cuda"):
        command = ["nvidia-smi", "--query-gpu=memory.total,name", "--format=csv,noheader,nounits"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        size, comma, name = found.stdout.partition("\n")[0].partition(", ")
        if found.returncode == 0 and comma and size.isdigit():
            return float(int(size) * 1024**2), name
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), "main memory"
