"""The output folder of a matrix: its files are its state.

matrix.yaml  env.json  results.jsonl
cells/KEY/{cell.json, ranks.parquet, vectors.parquet}     cell.json is written last
runs/RUN_KEY/                                             a run folder of n2kit train
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2kit.bench.matrix.cell import Cell
from n2kit.errors import BadInput
from n2kit.utils.files import locked, read_json, whole_parquet, write_json

FORMAT = 1
MATRIX, DATA, RESULTS, ROW, COSTS = "matrix.yaml", "data.json", "results.jsonl", "cell.json", "costs.json"
RERUN_HINT = "remove the cell's folder: the same n2kit bench command makes it again"
FIRST = {f".{DATA}.tmp"}  # what a bench that was killed while it made the folder may leave


@dataclass(frozen=True)
class Store:
    """Where a matrix's files are, and what they say."""

    root: Path

    def ensure_same_data(self, data: dict[str, str | None]) -> None:
        """Raises BadInput if the folder is another program's, or holds cells of other data: one report must not mix them."""
        mark = self.root / DATA
        if not mark.is_file():
            if self.root.exists() and not (self.root.is_dir() and {f.name for f in self.root.iterdir()} <= FIRST):
                raise BadInput(
                    f"{self.root} exists, and n2kit bench did not make it, or its {DATA} is lost", "give another -o"
                )
        elif (found := read_json(mark)) != data:
            differs = ", ".join(k for k in data if found.get(k) != data[k])
            raise BadInput(f"{self.root} holds cells of other data: another {differs}", "give another -o")

    def claim(self, data: dict[str, str | None]) -> None:
        """Make the folder this data's, or find that it is. Raises BadInput as `check`."""
        self.ensure_same_data(data)
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.root / DATA, data)
        self.cell_folder("").mkdir(exist_ok=True)

    def locked(self) -> AbstractContextManager[None]:
        """While one bench writes the folder, no other does. Raises BadInput (when entered): another is at it."""
        return locked(self.root / ".lock", str(self.root))

    def cell_folder(self, key: str) -> Path:
        return self.root / "cells" / key

    def run_folder(self, run_key: str) -> Path:
        return self.root / "runs" / run_key

    def start_bundle(self, run_key: str) -> Path:
        """The untrained bundle that a training starts at."""
        return self.root / "runs" / f".start-{run_key}"

    def drop_weights(self, run_key: str) -> None:
        """What a cell needs no more and takes a disk's room."""
        self.drop(self.run_folder(run_key) / "bundle")

    def drop(self, bundle: Path) -> None:
        """Remove a bundle, its manifest first: one that is half gone is none."""
        (bundle / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(bundle, ignore_errors=True)

    def training_costs(self, run_key: str, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The costs of a training as they were written when it ended; else those measured now."""
        file = self.run_folder(run_key) / COSTS
        if not file.is_file():
            write_json(file, measured())
        return read_json(file)

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """The row of a cell that has one; None for one that is to be run."""
        file = self.cell_folder(cell.key) / ROW
        if not file.is_file():
            return None
        row = self.read_row(cell.key)
        # What an arm is called may change without its result: the row goes by the matrix that is run now.
        now = {"arm": cell.arm, "also": cell.also, "axes": dict(cell.axes)}
        return row | now if row.get("format") == FORMAT and "state" in row else None

    def read_row(self, key: str) -> dict[str, Any]:
        """The row of a cell that is over, as it was written. Raises BadInput if the file is damaged."""
        try:
            return read_json(self.cell_folder(key) / ROW)
        except BadInput as problem:
            raise BadInput(problem.message, RERUN_HINT) from None

    def kept_vectors(self) -> dict[str, str]:
        """Which vectors are kept: what they are known by → the key of a done cell that has them. Cells of other matrices
        count too, where they can be read.
        """
        found: dict[str, str] = {}
        for file in filter(whole_parquet, sorted(self.root.glob("cells/*/vectors.parquet"))):
            with suppress(BadInput, OSError):
                row = self.read_row(file.parent.name)
                if row.get("state") == "done":
                    found |= dict.fromkeys(row.get("vectors_keys", []), file.parent.name)
        return found

    def has_ranks(self, row: Mapping[str, Any]) -> bool:
        """Whether what a row's figures came out of is there too, as reports want it."""
        return row["state"] != "done" or whole_parquet(self.cell_folder(row["key"]) / "ranks.parquet")

    def write(self, row: dict[str, Any]) -> None:
        """Write a cell's row; it is then over."""
        folder = self.cell_folder(row["key"])
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / ROW, row)

    def reset(self, cell: Cell) -> None:
        """Make a cell one that is to be run; its training, if it was that which failed, starts anew unless it has a checkpoint."""
        (self.cell_folder(cell.key) / ROW).unlink(missing_ok=True)

    def append_result(self, key: str) -> None:
        """Add the row of a cell that is over to the results, for whoever watches; `collect` puts them in order."""
        with (self.root / RESULTS).open("a", encoding="utf8") as file:
            file.write(json.dumps(self.read_row(key), ensure_ascii=False) + "\n")

    def new_row(self, cell: Cell) -> dict[str, Any]:
        """What is known of a cell before it is run."""
        refused = (
            {} if cell.refusal is None else {"state": "refused", "reason": cell.refusal[0], "hint": cell.refusal[1]}
        )
        return {
            "format": FORMAT,
            "key": cell.key,
            "run_key": cell.run_key,
            "vectors_keys": cell.vectors_keys,
            "arm": cell.arm,
            "also": cell.also,
            "seed": cell.seed,
            "axes": dict(cell.axes),
            "state": "open",
            "reason": "",
            "hint": "",
            "metrics": {},
            "buckets": [],
            "costs": {},
            "saliency": None,
            "files": {
                "ranks": f"cells/{cell.key}/ranks.parquet",
                "vectors": f"cells/{cell.key}/vectors.parquet",
                "run": f"runs/{cell.run_key}" if cell.trained and cell.baseline is None else None,
            },
        } | refused

    def collect(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        """The rows of all cells that have one, written to results.jsonl in the order of the matrix.

        That a cell is refused is so today, and is written there alone: a row that it got before stays what it is.
        """
        known = [self.new_row(cell) if cell.refusal is not None else self.read(cell) for cell in cells]
        rows = [row for row in known if row is not None]
        aside = self.root / f".{RESULTS}.tmp"
        aside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf8")
        aside.replace(self.root / RESULTS)
        return rows
