"""Parity with the paper's own code: `python -m n2kit.testing.reference DIR [--json]`.

DIR holds `cases.json`, one `NAME.safetensors` a case (`param.*`, `input.*`, `output.*`, `grad.*` under the reference's names), and
`recall.json` with `recall.safetensors`. Each case is built through the interfaces that users run, with every random weight
replaced by the reference's, and everything that the file holds is compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from n2kit.builder import from_plan
from n2kit.errors import BadInput
from n2kit.modeling.batch import Batch, collate
from n2kit.modeling.model import Model
from n2kit.modeling.prompts import IMG, IMG_EMB, TEXT_EMB, layout
from n2kit.planning.planner import make_plan
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.settings import resolve
from n2kit.recipe.variants import SPECS
from n2kit.utils.files import read_json

VALUE_LIMIT, GRADIENT_LIMIT = 1e-5, 1e-4
# A gradient that is zero by symmetry (a key's bias) is compared with this share of the largest one, not with its own noise.
GRADIENT_FLOOR = 1e-3

# The reference's parameter names → ours; the first prefix that fits.
KEYS = {
    "model.": "llm.model.",
    "lm_head.": "llm.lm_head.",
    "vision_tower.vision_tower.vision_model.": "vision.model.",
    "qformer.": "connector.qformer.",
    "query_tokens": "connector.queries",
    "mm_projector.": "connector.project.",
    "mm_projector_latefusion.": "fusion.late.",
    "gate.trans_all.": "fusion.gate.",
    "linear.": "head.",
    "temperature": "loss.temperature",
}
EMBEDDING = "model.embed_tokens.weight"
# Where a case says which of its token ids are our own words.
WORD_KEYS = {"image_token_id": IMG, "image_emb_token_id": IMG_EMB, "text_emb_token_id": TEXT_EMB}


@dataclass
class CaseResult:
    """One case: the largest relative difference of values and of gradients, or why it failed."""

    name: str
    status: str  # passed | failed
    value: float = 0.0
    gradient: float = 0.0
    compared: int = 0
    worst: str = ""
    reason: str = ""
    differences: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        detail = (
            self.reason
            or f"values {self.value:.1e}  gradients {self.gradient:.1e}  ({self.compared} compared, worst {self.worst})"
        )
        return f"{self.name:<24} {self.status:<8} {detail}"


def check_cases(folder: Path) -> Iterator[CaseResult]:
    """Check every case of a folder, one result at a time.

    Raises:
        BadInput: the folder holds no cases.json and no recall.json.
    """
    cases, recall = folder / "cases.json", folder / "recall.json"
    if not cases.is_file() and not recall.is_file():
        raise BadInput(f"{folder} holds no cases.json", "give a folder of reference cases")
    if cases.is_file():
        content = read_json(cases)
        for case in content["cases"]:
            yield _guarded(case["name"], lambda case=case: model_case(case, content["config"], folder))
    if recall.is_file():
        yield _guarded("recall", lambda: recall_case(folder))


def _guarded(name: str, run: Any) -> CaseResult:
    try:
        result: CaseResult = run()
    except Exception as error:  # a damaged case fails, and the next one is checked
        result = CaseResult(name, "failed", reason=f"{type(error).__name__}: {error}".splitlines()[0])
    return result


def model_case(case: dict[str, Any], config: dict[str, Any], folder: Path) -> CaseResult:
    """Compare the loss and its terms, every output and every gradient of one case."""
    data = load_file(folder / f"{case['name']}.safetensors")
    if "output.saliency" in data:
        return saliency_case(case, config, data)
    config = config | {key: case[key] for key in WORD_KEYS if key in case}
    model = build_case(case, config)
    load_parameters(model, data, config)
    batch = batch_of(data, config, case)
    with model.capture_hidden_states() as states:
        out = model(batch)
    ours: dict[str, Tensor | None] = {
        "output.embedding": out.views["multimodal"],
        "output.last_hidden_state": states[0],
        "output.visual_tokens": out.visual_tokens,
        "output.visual_embedding": out.views.get("visual"),
    }
    if batch.pixels is not None:
        seen = model.encode_images(batch)
        assert seen is not None
        ours["output.vision_hidden"] = seen.tokens
        ours["output.late_feature"] = seen.pooled if out.late is None else out.late
    generation = {} if out.answers is None else {"generation": out.answers[:, 0].sum() / out.answers[:, 1].sum()}
    result = model.loss(out.views, out.present, **generation)
    model.loss.zero_grad()
    result.loss.backward()
    symmetric = default_catalogue().resolve("loss", "infonce")
    dual = symmetric.cls()(_unclamped(symmetric.config()))
    dual.temperature.data.copy_(model.loss.temperature.data)
    losses = {
        "loss": result.loss,
        "loss_multimodal": result.terms["multimodal"],
        "loss_visual": result.terms.get("visual"),
        "loss_contrastive": result.terms["multimodal"],
        "loss_generation": result.terms.get("generation"),
        "loss_dual_multimodal": dual(out.views).loss,
    }
    return _compare(case, data, ours, losses, model, config, batch)


def build_case(case: dict[str, Any], config: dict[str, Any]) -> Model:
    """Build the model of a case, from the recipe that a user would write for it."""
    q = config["qformer"]
    settings = {
        "llm": "llama:tiny",
        "llm.config": _known(config["llama"], "LlamaConfig"),
        "llm.tune": "full",
        "vision": "clip:tiny",
        "vision.config": _known(config["clip_vision"], "CLIPVisionConfig"),
        "variant": variant_name(case["variant"]),
        "loss": "notellm" if case["variant"].get("generation") else "notellm2",
        "loss.generation_weight": case.get("generation_weight"),
        "loss.text_weight": case.get("text_weight"),
        "loss.vision_weight": case.get("vision_weight"),
        "loss.temperature": case.get("temperature"),
        "connector": "qformer",
        "connector.tokens": case.get("num_query_tokens"),
        "connector.width": q["hidden_size"],
        "connector.heads": q["num_attention_heads"],
        "connector.inner": q["intermediate_size"],
        "connector.layers": q["num_hidden_layers"],
        "connector.cross_every": q["cross_attention_frequency"],
        "prompt.template": "compact",
        "prompt.body_tokens": 64,
    }
    stated = {k: v for k, v in settings.items() if v is not None}
    width = case.get("dim_reduction") or -1
    # No head is a width of null, and the reference never clamps its temperature.
    recipe = resolve({**stated, "head.width": width if width > 0 else None, "loss.max_scale": None}, env={}).recipe
    model = from_plan(make_plan(recipe)).eval()
    model.connector_scale.fill_(1.0)  # nor does it calibrate
    return model


def variant_name(switches: dict[str, bool]) -> str:
    """Return the variant whose switches these are.

    Raises:
        BadInput: there is none.
    """
    image, early, late, micl = (switches.get(k, False) for k in ("image", "early_fusion", "late_fusion", "mICL"))
    for name, spec in SPECS.items():
        if spec.text and (spec.early, spec.late, spec.micl) == (image and early, image and late, micl):
            return name
    raise BadInput(f"no variant has the switches {switches}")


def batch_of(data: dict[str, Tensor], config: dict[str, Any], case: dict[str, Any]) -> Batch:
    """Make a batch of the case's token ids and images, as users' items become one."""
    words = words_of(config)
    ids = data["input.input_ids"]
    answers = (data["input.labels"] >= 0).sum(1) if "input.labels" in data else torch.zeros(len(ids), dtype=torch.long)
    sequences = []
    for row, answer in zip(ids.tolist(), answers.tolist(), strict=True):
        while row and row[-1] == config["pad_token_id"]:
            row.pop()
        sequences.append(layout([words.get(i, i) for i in row], case.get("num_query_tokens", 0), answer))
    pixels = data.get("input.images") if case["variant"].get("image") else None
    batch = collate(sequences, range(len(sequences)) if pixels is not None else [])
    batch.pixels = pixels
    return batch


def words_of(config: dict[str, Any]) -> dict[int, int]:
    """Map the case's token ids of the special words to the words."""
    return {config[key]: word for key, word in WORD_KEYS.items() if key in config}


def load_parameters(model: Model, data: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Copy `param.*` into the model.

    Raises:
        KeyError: a parameter of the case that the model does not have.
    """
    own = dict(model.named_parameters())
    for name, value in data.items():
        if not name.startswith("param."):
            continue
        target = our_name(name.removeprefix("param."))
        if target.split(".")[0] in ("vision", "connector", "fusion") and getattr(model, target.split(".")[0]) is None:
            continue  # the reference keeps parts that a variant does not use
        own[target].data.copy_(value.reshape(own[target].shape))
        if name == "param." + EMBEDDING:
            for token, word in words_of(config).items():
                model.special_tokens.table.weight.data[-word - 1] = value[token]


def our_name(name: str) -> str:
    """Translate a parameter's name of the reference into ours.

    Raises:
        KeyError: the name is in no part of the method.
    """
    for prefix, ours in KEYS.items():
        if name.startswith(prefix):
            return ours + name.removeprefix(prefix)
    raise KeyError(f"unknown parameter {name}")


def gradient(model: Model, name: str, config: dict[str, Any]) -> Tensor:
    """Return our gradient under the reference's name; the special words' rows are put back into the LLM's table."""
    parameter = dict(model.named_parameters())[our_name(name)]
    out = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
    if name == EMBEDDING and model.special_tokens.table.weight.grad is not None:
        for token, word in words_of(config).items():
            out[token] += model.special_tokens.table.weight.grad[-word - 1]
    return out


def _compare(
    case: dict[str, Any],
    data: dict[str, Tensor],
    ours: dict[str, Tensor | None],
    losses: dict[str, Tensor | None],
    model: Model,
    config: dict[str, Any],
    batch: Batch,
) -> CaseResult:
    result = CaseResult(case["name"], "passed")
    for name, value in losses.items():
        if name in case:
            if value is None:
                raise BadInput(f"the case states {name}, which this variant does not compute")
            result.differences[name] = _relative(value.detach(), torch.tensor(case[name]))
    real = torch.arange(batch.ids.shape[1])[None] <= batch.last_pos[:, None]
    for name, expected in data.items():
        if name.startswith("output."):
            got = ours.get(name)
            if got is None:
                raise BadInput(f"the case states {name}, which this variant does not compute")
            if name == "output.last_hidden_state":  # padding is nobody's business
                got, expected = got[real], expected[:, : real.shape[1]][real]
            result.differences[name] = _relative(got.detach(), expected)
    result.value = max(result.differences.values())
    gradients = {n: t for n, t in data.items() if n.startswith("grad.")}
    floor = GRADIENT_FLOOR * max((t.abs().max().item() for t in gradients.values()), default=0.0)
    for name, expected in gradients.items():
        got = gradient(model, name.removeprefix("grad."), config).reshape(expected.shape)
        result.differences[name] = _relative(got, expected, floor)
        result.gradient = max(result.gradient, result.differences[name])
    result.compared = len(result.differences)
    result.worst = max(
        result.differences,
        key=lambda n: result.differences[n] / (GRADIENT_LIMIT if n.startswith("grad.") else VALUE_LIMIT),
    )
    # `not <=`, so that a NaN fails.
    if not (result.value <= VALUE_LIMIT and result.gradient <= GRADIENT_LIMIT):
        result.status = "failed"
    return result


def saliency_case(case: dict[str, Any], config: dict[str, Any], data: dict[str, Tensor]) -> CaseResult:
    """Compare the curves S_v, S_t and S_o of every item and layer, and their means over the items."""
    from n2kit.evaluate.saliency import saliency

    # Such a case states no head; its weight does.
    model = build_case(case | {"dim_reduction": len(data["param.linear.weight"])}, config)
    load_parameters(model, data, config)
    curves = saliency(model, batch_of(data, config, case))
    result = CaseResult(case["name"], "passed", compared=2)
    result.differences["output.saliency"] = _relative(curves, data["output.saliency"])
    result.differences["saliency_mean"] = _relative(curves.mean(0), torch.tensor(case["saliency_mean"]))
    result.value = max(result.differences.values())
    result.worst = max(result.differences, key=lambda n: result.differences[n])
    if not result.value <= VALUE_LIMIT:
        result.status = "failed"
    return result


def recall_case(folder: Path) -> CaseResult:
    """Compare the reference's greedy pair selection, its pool, and every recall."""
    from n2kit.evaluate import evaluate

    content = read_json(folder / "recall.json")
    vectors = load_file(folder / "recall.safetensors")["embeddings"].numpy()
    metrics = {int(k.rpartition("@")[2]): v for k, v in content["metrics"].items() if "@" in k}
    report = evaluate(content["ids"], vectors, [tuple(p) for p in content["pairs"]], ks=sorted(metrics))
    result = CaseResult("recall", "passed", compared=len(metrics) + 2)
    for k, expected in metrics.items():
        result.differences[f"recall@{k}"] = _relative(torch.tensor(report.recall[k]), torch.tensor(expected))
    result.value = max(result.differences.values())
    result.worst = max(result.differences, key=lambda n: result.differences[n])
    if (report.queries, report.pool) != (content["queries"], content["pool"]) or not result.value <= VALUE_LIMIT:
        result.status = "failed"
        result.reason = (
            f"queries {report.queries}, expected {content['queries']}; pool {report.pool}, expected {content['pool']}; "
            f"recall off by {result.value:.1e} ({result.worst})"
        )
    return result


def _relative(got: Tensor, expected: Tensor, floor: float = 0.0) -> float:
    """Compute the largest absolute difference, as a share of the largest expected magnitude."""
    if got.shape != expected.shape:
        raise ValueError(f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}")
    scale = max(expected.abs().max().item(), floor, 1e-30)
    return (got.double() - expected.double()).abs().max().item() / scale


def _known(config: dict[str, Any], cls: str) -> dict[str, Any]:
    """Drop the keys of an old transformers' configuration that this one has renamed or removed."""
    import transformers

    known = set(getattr(transformers, cls)().to_dict()) | {"rope_theta", "rope_scaling"}
    known -= {"transformers_version", "dtype", "_name_or_path", "architectures", "return_dict", "rope_parameters"}
    kept = {k: v for k, v in config.items() if k in known and v is not None}
    if "max_position_embeddings" in kept:  # rotary positions know no limit; only the plan does
        kept["max_position_embeddings"] = max(kept["max_position_embeddings"], 1024)
    return kept


def _unclamped(config: Any) -> Any:
    return config.model_copy(update={"max_scale": None})


def main(arguments: list[str] | None = None) -> int:
    """Print one line a case, and return 1 if any fails."""
    parser = argparse.ArgumentParser(prog="python -m n2kit.testing.reference", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON document with every difference")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = []
    try:
        for result in check_cases(options.folder):
            results.append(result)
            if not options.json:
                print(result.line(), flush=True)
    except BadInput as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    if options.json:
        print(json.dumps([vars(r) for r in results], indent=1))
    return int(any(r.status == "failed" for r in results))


if __name__ == "__main__":
    sys.exit(main())
