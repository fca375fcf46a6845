"""n2kit: join any language model with any vision encoder into one embedding model of items.

    import n2kit
    model = n2kit.build(llm="qwen", vision="siglip")
    model = n2kit.load("runs/mine/bundle")
    vectors = model.encode(items)          # [n, d] numpy, unit length

Names are imported when they are first used: `import n2kit` alone loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("n2kit")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from n2kit.assemble import build as build
    from n2kit.bundle import load as load
    from n2kit.cards import ComponentSpec as ComponentSpec
    from n2kit.cards import ConnectorCard as ConnectorCard
    from n2kit.cards import FusionCard as FusionCard
    from n2kit.cards import LLMCard as LLMCard
    from n2kit.cards import MLLMCard as MLLMCard
    from n2kit.cards import Variant as Variant
    from n2kit.cards import VisionCard as VisionCard
    from n2kit.data.items import Item as Item
    from n2kit.data.items import read_items as read_items
    from n2kit.data.pairs import read_pairs as read_pairs
    from n2kit.hookspecs import hookimpl as hookimpl
    from n2kit.model import Model as Model
    from n2kit.parts import LLM as LLM
    from n2kit.parts import MLLM as MLLM
    from n2kit.parts import Connector as Connector
    from n2kit.parts import Fusion as Fusion
    from n2kit.parts import Joined as Joined
    from n2kit.parts import Loss as Loss
    from n2kit.parts import LossOut as LossOut
    from n2kit.parts import NewPart as NewPart
    from n2kit.parts import Origin as Origin
    from n2kit.parts import Part as Part
    from n2kit.parts import VisionEncoder as VisionEncoder
    from n2kit.parts import VisionOut as VisionOut

_HOME = {
    "assemble": "build",
    "bundle": "load",
    "cards": "ComponentSpec ConnectorCard FusionCard LLMCard MLLMCard Variant VisionCard",
    "data.items": "Item read_items",
    "data.pairs": "read_pairs",
    "hookspecs": "hookimpl",
    "model": "Model",
    "parts": "LLM MLLM Connector Fusion Joined Loss LossOut NewPart Origin Part VisionEncoder VisionOut",
}
_WHERE = {name: f"n2kit.{module}" for module, names in _HOME.items() for name in names.split()}
__all__ = ["__version__", *sorted(_WHERE)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'n2kit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
