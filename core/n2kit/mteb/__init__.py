"""n2kit's models and test sets in MTEB (extra `n2kit[mteb]`): `model(bundle)` and `task(…)`.

    import mteb, n2kit.mteb
    results = mteb.evaluate(n2kit.mteb.model("runs/mine"), n2kit.mteb.task("items.csv", "test.csv", images="images"))

The package `mteb` is imported when one of them is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.errors import Unavailable

if TYPE_CHECKING:
    from n2kit.modeling.model import Model

__all__ = ["model", "task"]


def model(bundle: str | Path | Model, *, name: str | None = None) -> Any:
    """Make an encoder of MTEB out of a model, a bundle or a run.

    Args:
        name: in MTEB's results, `organisation/model`; default: n2kit/ and the folder's name.

    Raises:
        BadInput: no bundle. Unavailable: mteb is not installed.
    """
    _check_installed()
    from n2kit.mteb.encoder import Encoder

    return Encoder.of(bundle, name)


def task(
    items: Any,
    pairs: str | Path,
    *,
    images: str | Path | None = None,
    pool: str | Path | None = None,
    name: str = "N2kitItems",
) -> Any:
    """Make a retrieval task of MTEB, items to items, out of a test set of n2kit.

    Args:
        items: a file of items, or items. pairs: a file of test pairs. images: the folder of the items' pictures.
        pool: a file of the ids that may be found; default: all.

    Raises:
        BadInput: what reading raises. Unavailable: mteb is not installed.
    """
    _check_installed()
    from n2kit.mteb.retrieval import retrieval_task

    return retrieval_task(items, Path(pairs), images, pool, name)


def _check_installed() -> None:
    import importlib.util

    if importlib.util.find_spec("mteb") is None:
        raise Unavailable("n2kit.mteb needs mteb, which is not installed", "pip install 'n2kit[mteb]'")
