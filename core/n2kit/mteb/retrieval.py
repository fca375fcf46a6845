"""A test set of n2kit as a retrieval task of MTEB."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from n2kit.api.reading import items_of
from n2kit.data.image_source import GivenImage, locate
from n2kit.data.items import Item
from n2kit.data.packed import Packed, packed_bytes
from n2kit.data.pairs import read_ids, read_pairs
from n2kit.mteb.encoder import ITEM

SPLIT = "test"


def retrieval_task(items: Any, pairs: Path, images: str | Path | None, pool: str | Path | None, name: str) -> Any:
    """Make the task: queries are the pairs' first items, relevant are all that are paired with them, in the direction of the pair."""
    known = items_of(items)
    read = read_pairs(pairs, known)
    among = list(dict.fromkeys(read_ids(pool, known))) if pool is not None else [item.id for item in known]
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    for query, target in read:
        relevant[query][target] = 1
    folder = None if images is None else Path(images)
    has_image = any(known[i].image for i in (*relevant, *among))
    category = "it2it" if has_image else "t2t"

    class N2kitItems(AbsTaskRetrieval):  # type: ignore[misc]
        """Items that belong to an item; the query itself is in the pool, and is not counted."""

        ignore_identical_ids, data_loaded = True, False
        metadata = TaskMetadata(
            name=name, description="Items that belong together, by pairs of n2kit.", type="Any2AnyRetrieval" if has_image else "Retrieval",
            category=category, modalities=["text", "image"] if has_image else ["text"], eval_langs=["eng-Latn"],
            eval_splits=[SPLIT], main_score="recall_at_10", dataset={"path": f"n2kit/{name}", "revision": read.digest()},
        )  # fmt: skip

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:
            """Read the items into MTEB's form, once."""
            if self.data_loaded:
                return
            corpus, queries = (_dataset([known[i] for i in ids], folder, has_image) for ids in (among, list(relevant)))
            split = RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=dict(relevant), top_ranked=None)
            self.dataset = {"default": {SPLIT: split}}
            self.data_loaded = True

    return N2kitItems()


def _dataset(items: list[Item], folder: Path | None, has_image: bool) -> Dataset:
    """Write items as MTEB's columns: a text that any model reads, and what n2kit's models read in place of it."""
    rows: dict[str, list[Any]] = {"id": [], "text": [], ITEM: []} | ({"image": []} if has_image else {})
    for item in items:
        rows["id"].append(item.id)
        rows["text"].append(", ".join(filter(None, (item.title, *item.topics, item.content))))
        rows[ITEM].append(json.dumps({f: getattr(item, f) for f in ("title", "topics", "content", "category")}))
        if has_image:
            rows["image"].append(_image(item, folder))
    features = {name: Value("string") for name in ("id", "text", ITEM)} | ({"image": Image()} if has_image else {})
    return Dataset.from_dict(rows, features=Features(features))


def _image(item: Item, folder: Path | None) -> Any:
    if not item.image:
        return None
    if isinstance(item.image, GivenImage):
        source = packed_bytes(item.image) if isinstance(item.image.source, Packed) else item.image.source
        return {"bytes": source, "path": None} if isinstance(source, bytes) else source
    return str(locate(item.image, folder))
