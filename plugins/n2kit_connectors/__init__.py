"""Connectors: qformer (the paper's), resampler, mlp, linear, pool, pixel-shuffle, identity."""

from typing import Any

from n2kit.contract import ComponentSpec, Preset, hookimpl

N2KIT_PLUGIN_API = (2, 0)


def _connector(
    name: str, target: str, card: str, summary: str, tiny: dict[str, Any], shorthand: str | None = "tokens"
) -> ComponentSpec:
    return ComponentSpec(
        kind="connector",
        name=name,
        target=f"n2kit_connectors.{target}",
        summary=summary,
        config=f"n2kit_connectors.plan:{target.partition(':')[2]}Config",
        card=f"n2kit_connectors.plan:{card}",
        shorthand=shorthand,
        presets={"tiny": Preset(options=tiny)},
        capabilities=frozenset({"bfloat16", "mask"}),
    )


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        _connector(
            "qformer",
            "qformer:QFormer",
            "qformer_card",
            "learned queries that attend to the image, then an MLP (the paper's)",
            {"tokens": 4, "layers": 2, "width": 32, "heads": 4, "inner": 64},
        ),
        _connector(
            "resampler",
            "resampler:Resampler",
            "resampler_card",
            "learned latents that attend to the image and to themselves, then a Linear (Flamingo's Perceiver resampler)",
            {"tokens": 4, "layers": 2, "heads": 2, "head_width": 16, "inner": 64},
        ),
        _connector(
            "mlp",
            "projector:MLP",
            "projector_card",
            "Linear · GELU · Linear on every vision token, optionally averaged to fewer",
            {"tokens": 4},
        ),
        _connector(
            "linear",
            "projector:Linear",
            "projector_card",
            "one Linear on every vision token, optionally averaged to fewer",
            {"tokens": 4},
        ),
        _connector(
            "pool",
            "projector:Pool",
            "projector_card",
            "the patches averaged to 4 tokens (or another number), then one Linear",
            {"tokens": 4},
        ),
        _connector(
            "pixel-shuffle",
            "shuffle:PixelShuffle",
            "pixel_shuffle_card",
            "each square of 2 × 2 patches (or another scale) as one token, then an MLP (InternVL, SmolVLM)",
            {"scale": 2},
            shorthand="scale",
        ),
        _connector(
            "identity",
            "projector:Identity",
            "identity_card",
            "the vision tokens as they are, where the language model reads their width",
            {},
            shorthand=None,
        ),
    ]
