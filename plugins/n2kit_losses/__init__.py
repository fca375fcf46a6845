"""Losses on pairs: notellm2 (the paper's), infonce (symmetric, two towers)."""

from n2kit import ComponentSpec, hookimpl

N2KIT_PLUGIN_API = (1, 0)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="loss",
            name="notellm2",
            target="n2kit_losses.losses:NoteLLM2Loss",
            summary="one-tower InfoNCE on the multimodal and, under mICL, the visual view, weighted 9 : 1 (the paper's)",
            config="n2kit_losses.config:NoteLLM2Config",
        ),
        ComponentSpec(
            kind="loss",
            name="infonce",
            target="n2kit_losses.losses:SymmetricInfoNCE",
            summary="left → right and right → left, averaged; only the other side's items are negatives",
            config="n2kit_losses.config:InfoNCEConfig",
        ),
    ]
