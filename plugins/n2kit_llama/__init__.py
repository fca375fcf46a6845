"""The Llama family: Llama 2 and 3.x, SmolLM2, TinyLlama."""

from n2kit.contract import ComponentSpec, hookimpl
from n2kit_hf.families import GROUPED, Family, Tiny

N2KIT_PLUGIN_API = (2, 0)

LLAMA = Family(
    "llama",
    "Llama 2/3.x, SmolLM2, TinyLlama",
    ("llama",),
    {"tiny": Tiny({**GROUPED, "model_type": "llama"}, 34976, "Llama")},
)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [LLAMA.spec()]
