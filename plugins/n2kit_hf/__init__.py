"""Backbones of transformers: language-model families by name, and any other one by hub id, folder or GGUF file."""

from n2kit.contract import ComponentSpec, hookimpl
from n2kit_hf.families import llm_specs
from n2kit_hf.vision_specs import vision_specs

N2KIT_PLUGIN_API = (2, 0)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [*llm_specs(), *vision_specs()]
