"""Connectors: qformer (the paper's), mlp, linear."""

from n2kit import ComponentSpec, Variant, hookimpl

N2KIT_PLUGIN_API = (1, 0)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="connector",
            name="qformer",
            target="n2kit_connectors.qformer:QFormer",
            summary="learned queries that attend to the image, then an MLP (the paper's)",
            config="n2kit_connectors.plan:QFormerConfig",
            card="n2kit_connectors.plan:qformer_card",
            shorthand="tokens",
            variants={"tiny": Variant(options={"tokens": 4, "layers": 2, "width": 32, "heads": 4, "inner": 64})},
        ),
        ComponentSpec(
            kind="connector",
            name="mlp",
            target="n2kit_connectors.projector:MLP",
            summary="Linear · GELU · Linear on every vision token, optionally averaged to fewer",
            config="n2kit_connectors.plan:MLPConfig",
            card="n2kit_connectors.plan:projector_card",
            shorthand="tokens",
            variants={"tiny": Variant(options={"tokens": 4})},
        ),
        ComponentSpec(
            kind="connector",
            name="linear",
            target="n2kit_connectors.projector:Linear",
            summary="one Linear on every vision token, optionally averaged to fewer",
            config="n2kit_connectors.plan:LinearConfig",
            card="n2kit_connectors.plan:projector_card",
            shorthand="tokens",
            variants={"tiny": Variant(options={"tokens": 4})},
        ),
    ]
