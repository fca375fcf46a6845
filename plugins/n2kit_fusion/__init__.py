"""Late fusions: gate (the paper's), none."""

from n2kit import ComponentSpec, hookimpl

N2KIT_PLUGIN_API = (1, 0)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="fusion",
            name="gate",
            target="n2kit_fusion.fusions:Gate",
            summary="z ⊙ n + (1 − z) ⊙ W v with z = sigmoid(W_z [n ; W v]) (the paper's)",
            config="n2kit_fusion.plan:NoOptions",
            card="n2kit_fusion.plan:gate_card",
        ),
        ComponentSpec(
            kind="fusion",
            name="none",
            target="n2kit_fusion.fusions:NoFusion",
            summary="the compressed word as it is",
            config="n2kit_fusion.plan:NoOptions",
            card="n2kit_fusion.plan:none_card",
        ),
    ]
