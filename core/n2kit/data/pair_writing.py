"""Pairs into files that `read_pairs` reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from n2kit.errors import BadInput
from n2kit.utils.files import atomic_write

if TYPE_CHECKING:
    from n2kit.data.pairs import Pairs

WRITTEN = (".csv", ".tsv", ".jsonl")


def check_writable(path: Path, *, force: bool = False) -> None:
    """Check that `write_pairs` can write a file.

    Raises:
        BadInput: its format is none that is written, or it exists and `force` is not set.
    """
    if path.suffix.lower() not in WRITTEN:
        raise BadInput(f"{path}: pairs are written as {', '.join(WRITTEN)}", "give another -o")
    if path.is_dir() or (path.exists() and not force):
        raise BadInput(f"{path} exists", "give another -o" + ("" if path.is_dir() else ", or --force to replace it"))


def write_pairs(pairs: Pairs, path: Path) -> None:
    """Write a file that `read_pairs` reads: query, target, and grade and negatives where there are some.

    Raises:
        BadInput: an id that a TSV cannot hold.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf8", newline="") as file:
        if path.suffix.lower() == ".jsonl":
            for query, target in pairs:
                row: dict[str, Any] = {"query": query, "target": target}
                row |= {"grade": pairs.grade((query, target))} if pairs.grades else {}
                row["negatives"] = list(pairs.negatives.get((query, target), ()))
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            most = max((len(ids) for ids in pairs.negatives.values()), default=0)
            names = ["query", "target", *["grade"] * bool(pairs.grades), *(f"negative_{n + 1}" for n in range(most))]
            tab: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}  # as they are read
            writer = csv.writer(file, lineterminator="\n", **(tab if path.suffix.lower() == ".tsv" else {}))
            rows = (
                [*pair, *([pairs.grade(pair)] if pairs.grades else []), *pairs.negatives.get(pair, ())]
                for pair in pairs
            )
            try:
                writer.writerows([names, *([*row, *[""] * (len(names) - len(row))] for row in rows)])
            except csv.Error as error:
                raise BadInput(f"{path}: an id holds a tab or ends a line: {error}", "-o FILE.csv or .jsonl") from None
