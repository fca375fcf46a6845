"""n2kit: join any language model with any vision encoder into one embedding model of items.

    import n2kit
    model = n2kit.build(llm="qwen", vision="siglip")
    model = n2kit.load("runs/mine/bundle")
    vectors = model.encode(items)          # [n, d] numpy, unit length

Names are imported when they are first used: `import n2kit` alone loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from n2kit.utils.lazy_exports import lazy_exports
from n2kit.utils.version import VERSION

if TYPE_CHECKING:
    from n2kit.builder import build as build
    from n2kit.bundle.io import load as load
    from n2kit.data.items import Item as Item
    from n2kit.data.items import read_items as read_items
    from n2kit.data.pairs import read_pairs as read_pairs
    from n2kit.modeling.model import Model as Model
    from n2kit.whitening.fit import fit as fit

_HOMES = {
    "n2kit.builder": "build",
    "n2kit.bundle.io": "load",
    "n2kit.data.items": "Item read_items",
    "n2kit.data.pairs": "read_pairs",
    "n2kit.modeling.model": "Model",
    "n2kit.whitening.fit": "fit",
}
__version__ = VERSION
__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOMES, ("bench", "contract", "errors", "testing"))  # pyright: ignore[reportUnsupportedDunderAll]
__all__ += ["__version__"]
