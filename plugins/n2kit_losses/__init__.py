"""Losses on pairs: notellm2 (the paper's) and notellm, infonce, multi-positive, sigmoid, triplet, cosent; matryoshka around any."""

from n2kit.contract import ComponentSpec, hookimpl

N2KIT_PLUGIN_API = (2, 0)


def _loss(name: str, target: str, config: str, summary: str, *capabilities: str) -> ComponentSpec:
    return ComponentSpec(
        kind="loss",
        name=name,
        target=f"n2kit_losses.{target}",
        summary=summary,
        config=f"n2kit_losses.config:{config}",
        capabilities=frozenset(capabilities),
    )


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        _loss(
            "notellm2",
            "losses:NoteLLM2Loss",
            "NoteLLM2Config",
            "one-tower InfoNCE on the multimodal and, under mICL, the visual view, weighted 9 : 1 (the paper's)",
            "negatives",
        ),
        _loss(
            "notellm",
            "losses:NoteLLMLoss",
            "NoteLLMConfig",
            "notellm2, and the language model generates category or topics behind the vector, weighted 1 : 0.01 (NoteLLM)",
            "generation",
            "negatives",
        ),
        _loss(
            "infonce",
            "losses:InfoNCE",
            "InfoNCEConfig",
            "left → right and right → left, averaged; or one direction, or one tower (`form`)",
            "negatives",
        ),
        _loss(
            "multi-positive",
            "multi_positive:MultiPositiveLoss",
            "ContrastiveConfig",
            "all known partners of a row that are in the batch, weighted by the pairs' grades, against its negatives",
            "negatives",
        ),
        _loss(
            "sigmoid",
            "losses:SigmoidLoss",
            "SigmoidConfig",
            "each left–right pair judged on its own, with a learned temperature and bias (SigLIP)",
            "negatives",
        ),
        _loss(
            "triplet",
            "ranking:TripletLoss",
            "TripletConfig",
            "partners nearer than negatives by a margin of cosine distance; the hardest of the batch, or all",
            "negatives",
        ),
        _loss(
            "cosent",
            "ranking:CoSENTLoss",
            "CoSENTConfig",
            "pairs in the order of their grades, a third column of the pairs file (CoSENT)",
        ),
        _loss(
            "matryoshka",
            "matryoshka:MatryoshkaLoss",
            "MatryoshkaConfig",
            "another loss (`of`) on the first dimensions of the vectors, for several widths",
            "negatives",
        ),
    ]
