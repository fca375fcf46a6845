"""`n2kit bench` as a library call: prepare a matrix, preview it or run it, and get the rows of its cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from n2kit.bench.cell_row import DONE, FAILED, OPEN, REFUSED, CellRow
from n2kit.bench.events import Emit, Note, ignore
from n2kit.bench.matrix.cell import Cell
from n2kit.bench.matrix.data import check_data, read_data
from n2kit.bench.matrix.expand import expand
from n2kit.bench.matrix.presets import filled
from n2kit.bench.matrix.spec import MatrixSpec, matrix_of, read_matrix
from n2kit.bench.runner.context import BenchContext
from n2kit.bench.runner.scheduler import Engine, Preview, preview, run_matrix, timed
from n2kit.bench.runner.store import VECTORS, Store
from n2kit.data.fetch import Progress
from n2kit.data.skipped import write_skipped
from n2kit.errors import N2kitError
from n2kit.evaluate.plugged_metrics import check_metrics

Matrix = str | Path | Mapping[str, Any] | MatrixSpec


@dataclass(frozen=True)
class BenchResult:
    """The result of a run.

    rows: of all cells that have one, in the order of the matrix. cells: how many the matrix has. report: the files of the
    report; where it could not be written, report_problem says why. notes: what the items have, and what a lenient reading left out.
    skipped: the file that lists the items and rows that could not be used, if there are any.
    """

    out: Path
    rows: list[CellRow]
    cells: int
    report: list[Path]
    report_problem: str | None = None
    notes: Sequence[str] = ()
    skipped: Path | None = None

    @property
    def failed(self) -> list[CellRow]:
        """The rows of the cells that failed, each with its reason."""
        return [row for row in self.rows if row.state == FAILED]

    @property
    def counts(self) -> dict[str, int]:
        """State → how many cells: done, failed, refused, open."""
        states = [row.state for row in self.rows]
        return {state: states.count(state) for state in (DONE, FAILED, REFUSED)} | {OPEN: self.cells - len(self.rows)}


@dataclass(frozen=True)
class PreparedBench:
    """A matrix whose data is read and whose cells are known; nothing is run or written yet."""

    context: BenchContext
    cells: list[Cell]
    engine: Engine
    notes: list[str]

    @property
    def out(self) -> Path:
        return self.context.store.root

    @property
    def read(self) -> dict[str, Any]:
        """The facts of the items file, as `Items.facts` gives them."""
        return self.context.data.items.facts()

    def preview(self, *, only: str | None = None, retry_failed: bool = False) -> Preview:
        """Return the state of each cell and the work that open cells share, without a time."""
        return preview(self.context, self.cells, only=only, retry=retry_failed)

    def estimate(self, seen: Preview, progress: Callable[[int, int], None]) -> Preview:
        """Return the preview with the time that it will take, from finished cells or a short probe in this process."""
        return timed(self.context, seen, self.engine.each, progress)

    def run(
        self,
        *,
        only: str | None = None,
        retry_failed: bool = False,
        keep_bundles: bool = False,
        on_event: Emit = ignore,
    ) -> BenchResult:
        """Run every cell that is not done, and write the report; see `n2kit.bench.run`."""
        context = replace(self.context, keep_bundles=keep_bundles, emit=on_event)
        try:
            rows = run_matrix(context, self.cells, only=only, retry=retry_failed, engine=self.engine)
        except KeyboardInterrupt:
            _, problem = self._write_report()  # on the cells that are done
            if problem is not None:
                on_event(Note(problem))
            raise
        skipped = write_skipped(self.out, self._skipped(rows), context.data.dropped)
        return BenchResult(self.out, rows, len(self.cells), *self._write_report(), self.notes, skipped)

    def _skipped(self, rows: Iterable[CellRow]) -> dict[str, str]:
        """Collect the items that any cell could not use as they are: id → reason."""
        from n2kit.embed.vectors_file import skipped_of

        files = (self.context.store.cell_folder(row.key) / VECTORS for row in rows if row.state == DONE)
        return {item: reason for file in files for item, reason in skipped_of(file).items()}

    def _write_report(self) -> tuple[list[Path], str | None]:
        """Write the report and return its files; a matrix is not lost for a page that cannot be written."""
        from n2kit.bench.report import write

        data = self.context.data
        try:
            return write(self.out, data.items, data.images, pool=data.pool, planned=len(self.cells)), None
        except (N2kitError, OSError) as problem:
            return [], f"no report: {problem}"


def prepare(
    matrix: Matrix,
    out: str | Path = "bench",
    *,
    jobs: int = 1,
    threads: int | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    device: str | None = None,
    data: Mapping[str, str | Path | None] | None = None,
    progress: Progress | None = None,
) -> PreparedBench:
    """Read a matrix and its data, and expand it into its cells, without running one.

    Args:
        data: items, pairs, … by name. This and the other arguments are those of `n2kit.bench.run`.
        progress: called with (done, total) while images are fetched.

    Raises:
        BadInput: a wrong matrix or wrong data.
    """
    spec = filled(_spec(matrix, {name: path for name, path in (data or {}).items() if path is not None}))
    check_metrics(spec.metrics)
    found, notes = read_data(spec, progress)
    runs = Engine(jobs, threads, engine == "ray" or ray_address is not None, ray_address)
    cells = expand(spec, found.digests)
    check_data(
        spec, found, (cell.recipe.variant for cell in cells if cell.recipe is not None and cell.baseline is None)
    )
    return PreparedBench(BenchContext(spec, found, Store(Path(out)), device), cells, runs, notes)


def run(
    matrix: Matrix,
    out: str | Path = "bench",
    *,
    items: str | Path | None = None,
    pairs: str | Path | None = None,
    val_pairs: str | Path | None = None,
    test_pairs: str | Path | None = None,
    pool: str | Path | None = None,
    images: str | Path | None = None,
    jobs: int = 1,
    threads: int | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    device: str | None = None,
    only: str | None = None,
    retry_failed: bool = False,
    keep_bundles: bool = False,
    on_event: Emit = ignore,
) -> BenchResult:
    """Train and evaluate every combination of a matrix, each cell once; the same call goes on where it was stopped.

    Args:
        matrix: a matrix file, its content as a dict, or a `MatrixSpec`.
        out: the folder of the results.
        items, pairs, val_pairs, test_pairs, pool, images: the data; they count over what the matrix names.
        jobs: processes at a time. threads: of each; by default this machine's, divided among them.
        engine: `ray` leaves the processes to Ray; ray_address: of a cluster that runs already.
        device: as for `n2kit train`; default: the best there is.
        only: a pattern of the arms or keys to run; other cells stay as they are.
        retry_failed: run failed cells again. keep_bundles: keep every trained bundle.
        on_event: called with each event (`n2kit.bench.events`), in this process.

    Raises:
        BadInput: a wrong matrix or wrong data; a folder that is another's; `only` fits no cell.
        Unavailable: the disk is full, or the engine is not there.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the report on the finished cells is written.
    """
    data = {"items": items, "pairs": pairs, "val_pairs": val_pairs, "test_pairs": test_pairs}
    prepared = prepare(
        matrix, out, jobs=jobs, threads=threads, engine=engine, ray_address=ray_address, device=device,
        data=data | {"pool": pool, "images": images},
    )  # fmt: skip
    return prepared.run(only=only, retry_failed=retry_failed, keep_bundles=keep_bundles, on_event=on_event)


def _spec(matrix: Matrix, paths: Mapping[str, str | Path]) -> MatrixSpec:
    """Return the matrix with `paths` in place of its own."""
    if isinstance(matrix, MatrixSpec):
        return matrix.model_copy(update={name: Path(path) for name, path in paths.items()})
    if isinstance(matrix, Mapping):
        return matrix_of(dict(matrix) | dict(paths))
    return read_matrix(Path(matrix), paths)
