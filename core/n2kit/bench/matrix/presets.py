"""Presets: what a named matrix fills in where the user gave nothing."""

from __future__ import annotations

from n2kit.bench.matrix.baseline_names import BASELINES
from n2kit.bench.matrix.spec import ArmSpec, Inference, MatrixSpec

# NoteLLM-2's comparisons: variants, visual tokens, weights of the two views, and inputs taken away from a trained model.
VARIANTS = ["text_only", "only_late_fusion", "basic", "late_early_fusion", "micl", "notellm2"]
TOKENS = (8, 16, 32, 48)
WEIGHTS = (1, 3, 9, 19)  # of the multimodal view, to 1 of the visual view
REMOVED_INPUT: dict[Inference, str] = {"no-image": "without image", "no-text": "without text"}
NEGLECTING = ("basic", "late_early_fusion", "notellm2")
PAPER_BASELINES = [name for name, baseline in BASELINES.items() if "mllm" not in baseline.takes]
FOLLOWED = 32  # items, for the saliency of every arm that has it
QUICK_BASELINES = ["tfidf", "vision", "concat-std", "whitened"]
QUICK_VARIANTS = ["text_only", "basic", "notellm2"]
QUICK_STEPS = 20


def filled(matrix: MatrixSpec) -> MatrixSpec:
    """Return the matrix with the values of its preset spelled out; what the user named stays as it is."""
    if matrix.preset is None:
        return matrix
    paper = matrix.preset == "paper"
    given = matrix.model_fields_set
    settings = matrix.settings
    if paper:
        settings = {"prompt.template": "en", "head.width": 64} | settings  # the paper's own, whatever the model's size
    if not paper and not any(f"train.{key}" in settings for key in ("max_steps", "epochs")):
        settings = settings | {"train.max_steps": QUICK_STEPS}
    own = {(arm.name, arm.variant) for arm in matrix.arms}
    return matrix.model_copy(
        update={
            "preset": None,
            "variant": matrix.variant or (VARIANTS if paper else QUICK_VARIANTS),
            "baselines": matrix.baselines if "baselines" in given else PAPER_BASELINES if paper else QUICK_BASELINES,
            "seeds": matrix.seeds if "seeds" in given or not paper else [0, 1, 2],
            "arms": [*(arm for arm in _paper() if paper and (arm.name, arm.variant) not in own), *matrix.arms],
            "settings": settings,
            "saliency": matrix.saliency if "saliency" in given or not paper else FOLLOWED,
        }
    )


def _paper() -> list[ArmSpec]:
    """List the paper's arms that are no variant; where components do not allow one, its cells are refused with the reason."""
    untrained = [
        ArmSpec(name="zero-shot, text alone", variant="text_only", settings={"head.width": None}, trained=False),
        ArmSpec(name="zero-shot", settings={"head.width": None}, trained=False),
    ]
    before = [
        ArmSpec(name="NoteLLM", variant="text_only", loss="notellm")
    ]  # text, with topics and categories to generate
    tokens = [ArmSpec(name=f"{n} tokens", settings={"connector.tokens": n}) for n in TOKENS]
    weights = [
        ArmSpec(name=f"weights {n}:1", settings={"loss.text_weight": float(n), "loss.vision_weight": 1.0})
        for n in WEIGHTS
    ]
    taken = [
        ArmSpec(name=words, variant=variant, inference=inference)
        for inference, words in REMOVED_INPUT.items()
        for variant in NEGLECTING
    ]
    return [arm.model_copy(update={"optional": True}) for arm in (*untrained, *before, *tokens, *weights, *taken)]
