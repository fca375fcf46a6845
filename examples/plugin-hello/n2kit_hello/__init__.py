"""A vision encoder that sees colours. Nothing heavy is imported here: every n2kit command reads this file."""

from pydantic import BaseModel

from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl

N2KIT_PLUGIN_API = (2, 0)
CARD = VisionCard(tokens=16, token_width=24, pooled_width=24, image_size=32, parameters=4 * 24)


class Config(BaseModel):
    """No options."""


def card(config, locate):
    return CARD


@hookimpl
def n2kit_register_components():
    return [
        ComponentSpec(
            kind="vision",
            name="hello",
            summary="mean colours of a 4 × 4 grid",
            target="n2kit_hello.model:Hello",
            config="n2kit_hello:Config",
            card="n2kit_hello:card",
            presets={"tiny": Preset(card=CARD, notes="random weights")},
            capabilities=frozenset({"bfloat16"}),
        )
    ]
