"""The Qwen family: Qwen2, Qwen2.5, Qwen3, and their mixtures of experts."""

from n2kit.contract import ComponentSpec, hookimpl
from n2kit_hf.families import GROUPED, Family, Tiny

N2KIT_PLUGIN_API = (2, 0)

QWEN = Family(
    "qwen",
    "Qwen2, Qwen2.5, Qwen3",
    ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe"),
    {
        "tiny": Tiny({**GROUPED, "model_type": "qwen3", "head_dim": 8}, 35008, "Qwen3"),
        "tiny-2.5": Tiny({**GROUPED, "model_type": "qwen2"}, 35104, "Qwen2"),
    },
)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [QWEN.spec()]
