"""Write this folder's items, pairs and pictures out of EmojiNotes, the drawings that `n2kit demo` uses.

    python examples/notes/make.py

Each of 28 concepts is drawn by three artists. The right neighbour of a drawing is the same concept by another artist.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from itertools import combinations
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKED = HERE.parents[1] / "core" / "n2kit" / "demo" / "emojinotes.zip"
ARTISTS = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji-flat"}
CONCEPTS = {  # the split that a concept's pairs belong to → its name → its id in EmojiNotes
    "train": {
        "lemon": "1f34b", "cherries": "1f352", "pineapple": "1f34d", "tangerine": "1f34a", "jeans": "1f456", "boot": "1f462",
        "top hat": "1f3a9", "glasses": "1f453", "wrench": "1f527", "ladder": "1fa9c", "door": "1f6aa", "couch": "1f6cb",
        "saxophone": "1f3b7", "keyboard": "1f3b9", "apple": "1f34e", "gear": "2699", "razor": "1fa92", "pouch": "1f45d",
        "gem": "1f48e", "flute": "1fa88",
    },
    "val": {"green apple": "1f34f", "high-heeled shoe": "1f460", "screwdriver": "1fa9b", "safety pin": "1f9f7"},
    "test": {"pear": "1f350", "dress": "1f457", "hammer": "1f528", "chair": "1fa91"},
}  # fmt: skip


def main() -> None:
    """Write items.csv, train.csv, val.csv, test.csv and images/."""
    items: list[dict[str, Any]] = []
    (HERE / "images").mkdir(exist_ok=True)
    with zipfile.ZipFile(PACKED) as packed:
        rows = [json.loads(line) for line in packed.read("items.jsonl").decode().splitlines()]
        for split, concepts in CONCEPTS.items():
            pairs = []
            for name, concept in concepts.items():
                drawn = {r["author"]: r for r in rows if r["concept"] == concept}
                topics = next(r["topics"] for r in drawn.values() if r["lang"] == "en" and r["topics"])
                made = [_item(name, artist, drawn[author], topics) for artist, author in ARTISTS.items()]
                for item, author in zip(made, ARTISTS.values(), strict=True):
                    (HERE / "images" / item["image"]).write_bytes(packed.read(f"images/{drawn[author]['image']}"))
                items += made
                pairs += combinations([item["id"] for item in made], 2)
            _write_csv(f"{split}.csv", [("query", "target"), *pairs])
    rows = [(i["id"], i["image"], i["title"], "|".join(i["topics"]), i["category"]) for i in items]
    _write_csv("items.csv", [list(items[0]), *rows])


def _item(name: str, artist: str, row: dict[str, Any], topics: list[str]) -> dict[str, Any]:
    """Describe a drawing: one artist gives a title, one gives topics, one gives both."""
    slug = f"{name.replace(' ', '-')}-{artist}"
    return {
        "id": slug,
        "image": f"{slug}.webp",
        "title": "" if artist == "twemoji" else name,
        "topics": [] if artist == "noto" else topics,
        "category": row["subgroup"],
    }


def _write_csv(name: str, rows: list[Any]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    (HERE / name).write_text(text.getvalue(), "utf8")


if __name__ == "__main__":
    main()
