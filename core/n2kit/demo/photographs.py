"""The demo's photographs, for the other tab of its page: the same weights, fitted on pairs of photographs of one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from n2kit.data.folder import IMAGES, data_file, needed_file
from n2kit.data.image_digests import images_digest
from n2kit.data.items import read_items
from n2kit.data.pairs import read_ids, read_pairs
from n2kit.demo.arms import Setup
from n2kit.demo.data import DemoData, read_facts
from n2kit.demo.result import DemoArm
from n2kit.embed import read_vectors
from n2kit.errors import BadInput
from n2kit.evaluate import RankingReport
from n2kit.pages import Example, draw_examples

FOLDER = "photographs"  # in the demo's
PHOTOGRAPH_ARMS = ("text", "image", "whitened")  # those that take a minute together
HITS = (1, 10)
WRITES = "n2kit data demo stamps -o FOLDER writes such a folder"


@dataclass
class PhotographData(DemoData):
    """Photographs with descriptions. A query has several right items: those that people sorted into its folder."""

    def groups(self, report: RankingReport) -> dict[str, list[int]]:
        return {"all": list(range(len(report.pairs)))}

    def category(self, item_id: str) -> str:
        """Name the folder that people sorted an item into."""
        facts = self.facts[item_id]
        return str(facts.get("folder") or facts.get("category") or "")

    def digest(self) -> str:
        """Return a text that differs whenever the items, their pictures or the pairs do."""
        files = [needed_file(self.folder, role) for role in ("items", "train", "val", "test", "pool")]
        pictures = images_digest(self.items, data_file(self.folder, IMAGES)).encode()
        return hashlib.sha256(b"\0".join([*(file.read_bytes() for file in files), pictures])).hexdigest()[:12]


@dataclass
class Photographs:
    """The arms' answers on the photographs: the ranks of the first right item, and neighbours by the fitted one."""

    data: PhotographData
    arms: Mapping[str, DemoArm]
    drawn: list[Example]
    farthest: list[Example]

    @property
    def queries(self) -> int:
        return len({query for query, _ in self.data.test})

    def hits(self, arm: DemoArm) -> list[float]:
        """Return the share of queries with a right item among the first HITS, in %."""
        return [100 * sum(rank <= k for rank in arm.ranks.values()) / len(arm.ranks) for k in HITS]

    def sentence(self) -> str:
        """Say what the best arm finds."""
        best = max(self.arms.values(), key=lambda arm: self.hits(arm)[-1])
        share = f"a photograph of the same folder is among the first {HITS[-1]} for {self.hits(best)[-1]:.1f} %"
        return f"“{best.title}” finds most: {share} of {self.queries} queries."

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the head and the rows of the arms' table."""
        rows = [[arm.title, *(f"{hit:.1f}" for hit in self.hits(arm)), arm.training] for arm in self.arms.values()]
        return ["photographs", *(f"right among the first {k}, %" for k in HITS), "training"], rows

    def to_dict(self) -> dict[str, Any]:
        return {
            "items": len(self.data.items),
            "queries": self.queries,
            "hits": {name: dict(zip(map(str, HITS), self.hits(arm), strict=True)) for name, arm in self.arms.items()},
        }


def read_photographs(folder: Path) -> PhotographData:
    """Read a data folder of photographs: items, train, val, test, pool and images.

    Raises:
        BadInput: a file or the images are missing.
    """
    try:
        files = {role: needed_file(folder, role) for role in ("items", "train", "val", "test", "pool")}
    except BadInput as problem:
        raise BadInput(problem.message, WRITES) from None
    if data_file(folder, IMAGES) is None:
        raise BadInput(f"{folder} has no folder {IMAGES}", WRITES)
    if files["items"].suffix != ".jsonl":
        raise BadInput(f"{files['items']} is no items.jsonl", WRITES)
    items = read_items(files["items"])
    train, val, test = (read_pairs(files[role], items) for role in ("train", "val", "test"))
    pool = read_ids(files["pool"], items)
    return PhotographData(folder, items, read_facts(files["items"]), train, val, test, pool, protocol="standard")


def setup_of(setup: Setup, data: PhotographData) -> Setup:
    """Return the setup of the demo's arms on photographs; what they keep lies in a folder of its own."""
    return replace(setup, data=data, folder=setup.folder / FOLDER)


def show(setup: Setup, data: PhotographData, arms: Mapping[str, DemoArm]) -> Photographs:
    """Draw queries by the seed, and find their neighbours by the vectors of the fitted arm."""
    stored = read_vectors(setup.folder / "vectors.parquet")
    drawn, farthest = draw_examples(stored.ids, stored.vectors, data.test, setup.seed)
    return Photographs(data, arms, drawn, farthest)
