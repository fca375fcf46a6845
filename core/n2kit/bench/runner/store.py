"""The output folder of a matrix: its files are its state.

matrix.yaml  env.json  results.jsonl
cells/KEY/{cell.json, ranks.parquet, vectors.parquet}     cell.json is written last
runs/RUN_KEY/                                             a run folder of n2kit train
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from n2kit.bench.cell_row import DONE, FORMAT, OPEN, REFUSED, RERUN_HINT, Axes, CellRow, parse_row
from n2kit.bench.matrix.cell import Cell
from n2kit.data.image_digests import OF_SIZES, is_of_sizes
from n2kit.errors import BadInput
from n2kit.utils.files import is_complete_parquet, read_json, temporaries_of, write_json, write_text
from n2kit.utils.locks import file_lock

MATRIX, DATA, RESULTS, ROW, COSTS = "matrix.yaml", "data.json", "results.jsonl", "cell.json", "costs.json"
VECTORS = "vectors.parquet"


@dataclass(frozen=True)
class Store:
    """The files of a matrix: their paths, and reading and writing them."""

    root: Path

    def ensure_same_data(self, data: dict[str, str | None]) -> None:
        """Check that the folder is a bench's, with cells of the same data: one report must not mix data.

        Raises:
            BadInput: it is another program's, or holds cells of other data.
        """
        mark = self.root / DATA
        if not mark.is_file():
            # A bench that was killed while it made the folder may leave temporary files.
            if self.root.exists() and not (self.root.is_dir() and {*self.root.iterdir()} <= {*temporaries_of(mark)}):
                raise BadInput(
                    f"{self.root} exists, and n2kit bench did not make it, or its {DATA} is lost", "give another -o"
                )
        elif (found := read_json(mark)) != data:
            differs = ", ".join(k for k in data if found.get(k) != data[k])
            if differs == "images" and is_of_sizes(found.get("images")):
                raise BadInput(f"{self.root} {OF_SIZES}", "give another -o")
            raise BadInput(f"{self.root} holds cells of other data: another {differs}", "give another -o")

    def claim(self, data: dict[str, str | None]) -> None:
        """Create the folder for this data, or check that it holds the same.

        Raises:
            BadInput: as `ensure_same_data`.
        """
        self.ensure_same_data(data)
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.root / DATA, data)
        self.cell_folder("").mkdir(exist_ok=True)

    def locked(self) -> AbstractContextManager[None]:
        """Lock the folder, so that one bench at a time writes it.

        Raises:
            BadInput: another process has the lock (when entered).
        """
        return file_lock(self.root / ".lock", str(self.root))

    def cell_folder(self, key: str) -> Path:
        return self.root / "cells" / key

    def run_folder(self, run_key: str) -> Path:
        return self.root / "runs" / run_key

    def start_bundle(self, run_key: str) -> Path:
        """Return the path of the untrained bundle that a training starts from."""
        return self.root / "runs" / f".start-{run_key}"

    def drop_weights(self, run_key: str) -> None:
        """Remove the trained weights of a run, which its evaluated cells need no more."""
        self.drop(self.run_folder(run_key) / "bundle")

    def drop(self, bundle: Path) -> None:
        """Remove a bundle, its manifest first: a bundle that is removed in part is no bundle then."""
        (bundle / "manifest.json").unlink(missing_ok=True)
        shutil.rmtree(bundle, ignore_errors=True)

    def training_costs(self, run_key: str, measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the costs of a training as they were written when it ended; else measure and write them."""
        file = self.run_folder(run_key) / COSTS
        if not file.is_file():
            write_json(file, measured())
        return read_json(file)

    def read(self, cell: Cell) -> CellRow | None:
        """Return the row of a cell, or None for a cell that is still to be run.

        Raises:
            BadInput: the file is damaged.
        """
        if not (self.cell_folder(cell.key) / ROW).is_file():
            return None
        raw = self._read_json(cell.key)
        if raw.get("format") != FORMAT or "state" not in raw:
            return None
        # An arm may get another name without another result: the row goes by the matrix that is run now.
        return self._parsed(raw, cell.key).updated(arm=cell.arm, also=cell.also, axes=dict(cell.axes))

    def read_row(self, key: str) -> CellRow:
        """Return the row of a finished cell as it was written.

        Raises:
            BadInput: the file is damaged.
        """
        return self._parsed(self._read_json(key), key)

    def _read_json(self, key: str) -> dict[str, Any]:
        try:
            return read_json(self.cell_folder(key) / ROW)
        except BadInput as problem:
            raise BadInput(problem.message, RERUN_HINT) from None

    def _parsed(self, raw: dict[str, Any], key: str) -> CellRow:
        file = self.cell_folder(key) / ROW
        return parse_row(raw, str(file), file)

    def kept_vectors(self) -> dict[str, str]:
        """Find the vectors that are kept: their key → the key of a done cell that has them. Cells of other matrices count too,
        where they can be read.
        """
        found: dict[str, str] = {}
        for file in filter(is_complete_parquet, sorted(self.root.glob(f"cells/*/{VECTORS}"))):
            with suppress(BadInput, OSError):
                row = self.read_row(file.parent.name)
                if row.state == DONE:
                    found |= dict.fromkeys(row.vectors_keys, file.parent.name)
        return found

    def has_ranks(self, row: CellRow) -> bool:
        """Tell whether a done row's ranks are there too, which reports need."""
        return row.state != DONE or is_complete_parquet(self.cell_folder(row.key) / "ranks.parquet")

    def write(self, row: CellRow) -> None:
        """Write the row of a cell, which finishes it."""
        folder = self.cell_folder(row.key)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / ROW, row.to_dict())

    def reset(self, cell: Cell) -> None:
        """Remove a cell's row, so that it is run again; a failed training starts anew unless it has a checkpoint."""
        (self.cell_folder(cell.key) / ROW).unlink(missing_ok=True)

    def append_result(self, key: str) -> None:
        """Append the row of a finished cell to results.jsonl while the matrix runs; `collect` puts the rows in order."""
        with (self.root / RESULTS).open("a", encoding="utf8") as file:
            file.write(json.dumps(self.read_row(key).to_dict(), ensure_ascii=False) + "\n")

    def new_row(self, cell: Cell) -> CellRow:
        """Return the row of a cell that has no result yet; a refused cell's row says why."""
        has_run = cell.trained and cell.baseline is None
        state, (reason, hint) = (OPEN, ("", "")) if cell.refusal is None else (REFUSED, cell.refusal)
        return CellRow(
            format=FORMAT,
            key=cell.key,
            run_key=cell.run_key,
            vectors_keys=list(cell.vectors_keys),
            arm=cell.arm,
            also=list(cell.also),
            seed=cell.seed,
            axes=Axes.model_validate(dict(cell.axes)),
            state=state,
            reason=reason,
            hint=hint,
            files={
                "ranks": f"cells/{cell.key}/ranks.parquet",
                "vectors": f"cells/{cell.key}/{VECTORS}",
                "run": f"runs/{cell.run_key}" if has_run else None,
            },
            path=self.cell_folder(cell.key) / ROW,
        )

    def collect(self, cells: Iterable[Cell]) -> list[CellRow]:
        """Return the rows of all cells that have one, and write them to results.jsonl in the order of the matrix.

        A refusal holds for this matrix and is written there alone: a row that the cell got before stays as it is.
        """
        known = [self.new_row(cell) if cell.refusal is not None else self.read(cell) for cell in cells]
        rows = [row for row in known if row is not None]
        lines = (json.dumps(row.to_dict(), ensure_ascii=False) + "\n" for row in rows)
        write_text(self.root / RESULTS, "".join(lines))
        return rows
