"""n2kit: join any language model with any vision encoder into one embedding model of items.

    import n2kit
    model = n2kit.build(llm="qwen", vision="siglip")
    model = n2kit.load("runs/mine/bundle")
    vectors = model.encode(items)          # [n, d] numpy, unit length

Names are imported when they are first used: `import n2kit` alone loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from n2kit.utils.version import VERSION as __version__

if TYPE_CHECKING:
    from n2kit.builder import build as build
    from n2kit.bundle.io import load as load
    from n2kit.data.items import Item as Item
    from n2kit.data.items import read_items as read_items
    from n2kit.data.pairs import read_pairs as read_pairs
    from n2kit.modeling.model import Model as Model

_HOME = {
    "builder": "build",
    "bundle.io": "load",
    "data.items": "Item read_items",
    "data.pairs": "read_pairs",
    "modeling.model": "Model",
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
