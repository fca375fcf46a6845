"""EmojiNotes as the demo reads it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from n2kit.data.items import Items, read_items
from n2kit.data.pairs import Pairs, read_ids, read_pairs
from n2kit.demo.sources import unpack_items
from n2kit.evaluate import RankingReport
from n2kit.evaluate.protocol import Protocol
from n2kit.utils.files import parse_json


@dataclass
class DemoData:
    """EmojiNotes: all items, the training, validation and test pairs, and the pool in which test targets must be found."""

    folder: Path
    items: Items
    facts: dict[str, dict[str, Any]]
    train: Pairs
    val: Pairs
    test: Pairs
    pool: list[str]
    protocol: Protocol = "notellm2"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def needed(self) -> list[str]:
        """List the ids of the catalogue: every query, and everything in the pool."""
        return list(dict.fromkeys([*(a for a, _ in self.test), *self.pool]))

    def quick(self) -> DemoData:
        """Keep a third: every third query and validation pair, and their targets with a third of the rest of the pool."""
        test, val = Pairs(self.test.pairs[::3]), Pairs(self.val.pairs[::3])
        targets = {target for _, target in test}
        rest = [i for i in self.pool if i not in targets]
        fill = {*rest[: max(0, len(self.pool) // 3 - len(targets))]}
        return replace(self, test=test, val=val, pool=[i for i in self.pool if i in targets or i in fill])

    def groups(self, report: RankingReport) -> dict[str, list[int]]:
        """Group positions of the kept pairs: all, both notes in one language, in two."""
        same = [self.facts[a]["lang"] == self.facts[b]["lang"] for a, b in report.pairs]
        return {
            "all": list(range(len(same))),
            "same language": [n for n, s in enumerate(same) if s],
            "cross language": [n for n, s in enumerate(same) if not s],
        }


def read_data(folder: Path) -> DemoData:
    """Read EmojiNotes, unpacked into `folder/data` if it is not there."""
    where = folder / "data"
    unpack_items(where)
    items = read_items(where / "items.jsonl")
    facts = read_facts(where / "items.jsonl")
    test = read_pairs(where / "test.csv", items)
    held_out = [i for i in read_ids(where / "pool.csv", items) if facts[i]["split"] != "train"]
    train, val = (read_pairs(where / f"{name}.csv", items) for name in ("train", "val"))
    return DemoData(where, items, facts, train, val, test, held_out)


def read_facts(file: Path) -> dict[str, dict[str, Any]]:
    """Read what stands of each item in a JSONL file: id → its row."""
    lines = enumerate(file.read_bytes().splitlines(), 1)
    return {row["id"]: row for row in (parse_json(line, file, line=number) for number, line in lines)}
