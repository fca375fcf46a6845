"""n2kit: join any language model with any vision encoder into one embedding model of items.

    import n2kit
    model = n2kit.build(llm="qwen", vision="siglip")
    run = n2kit.train(model, "items.csv", "train.csv", images="images", out="runs/mine")
    vectors = n2kit.embed("runs/mine", "items.csv", images="images")
    n2kit.evaluate(vectors, "test.csv")
    n2kit.recommend(n2kit.Index.build(vectors, items="items.csv"), "SKU-1")

Names are imported when they are first used: `import n2kit` alone loads neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from n2kit.utils.lazy_exports import lazy_exports
from n2kit.utils.version import VERSION

if TYPE_CHECKING:
    from n2kit.api.models import as_sentence_transformer as as_sentence_transformer
    from n2kit.api.models import build as build
    from n2kit.api.models import load as load
    from n2kit.api.reading import fetch_images as fetch_images
    from n2kit.api.reading import read_items as read_items
    from n2kit.api.reading import read_pairs as read_pairs
    from n2kit.api.search import Index as Index
    from n2kit.api.search import recommend as recommend
    from n2kit.api.work import embed as embed
    from n2kit.api.work import evaluate as evaluate
    from n2kit.api.work import fit as fit
    from n2kit.api.work import train as train
    from n2kit.data.items import Item as Item
    from n2kit.modeling.model import Model as Model

_HOMES = {
    "n2kit.api.models": "as_sentence_transformer build load",
    "n2kit.api.reading": "fetch_images read_items read_pairs",
    "n2kit.api.search": "Index recommend",
    "n2kit.api.work": "fit",
    "n2kit.data.items": "Item",
    "n2kit.modeling.model": "Model",
}
CALLED = ("embed", "evaluate", "train")  # packages that are called as functions; n2kit.api.work has these
__version__ = VERSION
__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOMES, ("bench", "contract", "errors", "testing", *CALLED))  # pyright: ignore[reportUnsupportedDunderAll]
__all__ += [*CALLED, "__version__"]
