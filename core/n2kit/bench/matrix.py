"""A whole matrix, from its cells to their rows."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from n2kit.bench import identity
from n2kit.bench.cells import Cell
from n2kit.bench.context import Bench
from n2kit.bench.local import cpus, run_local
from n2kit.bench.store import MATRIX
from n2kit.bench.tasks import open_cells, tasks
from n2kit.files import write_json

if TYPE_CHECKING:
    from n2kit.bench.estimate import Estimate

Engine = Literal["local", "ray"]
PACKAGES = ("n2kit", "torch", "transformers", "timm", "open_clip_torch", "accelerate", "peft", "safetensors", "numpy")


def run_matrix(
    bench: Bench, cells: Sequence[Cell], *, only: str | None = None, retry: bool = False, jobs: int = 1
) -> list[dict[str, Any]]:
    """Run every cell that is not done, and give the rows of all that have one, in the order of the matrix.

    Args:
        cells: what `n2kit.bench.cells.expand` makes of the bench's matrix.
        only: a pattern of arms or keys; other cells stay as they are.
        retry: run failed cells again.
        jobs: tasks at a time.

    Raises:
        BadInput: the folder is another's, holds cells of other data, or another bench is writing it.
        KeyboardInterrupt: Ctrl-C; the same call goes on.
    """
    store = bench.store
    store.claim(bench.data.digests)
    with store.locked():
        (store.root / MATRIX).write_text(bench.matrix.to_yaml(), "utf8")
        write_json(store.root / "env.json", _environment(jobs))
        for cell in cells:
            if cell.refusal is not None:
                store.write(store.row(cell) | {"data": bench.data.digests})
        todo = open_cells(store, cells, only=only, retry=retry)
        if retry:
            for cell in todo:
                store.forget(cell)
        states = [cell.refusal is not None for cell in cells]
        bench.say({"event": "matrix", "cells": len(cells), "open": len(todo), "refused": sum(states)})
        store.collect(cells)

        def say(event: dict[str, Any]) -> None:
            if event["event"] == "row":
                store.add(event["key"])
            bench.say(event)

        try:
            run_local(replace(bench, say=say), tasks(todo), jobs)
        finally:
            rows = store.collect(cells)
    return rows


@dataclass(frozen=True)
class Preview:
    """What a run would do: the state of each cell, and how long the open ones take.

    states: done, failed, refused or open, of each of `cells`. trainings, towers: how many the open cells share. `estimate` is None
    where nothing is open.
    """

    cells: Sequence[Cell]
    states: list[str]
    trainings: int
    towers: list[str]
    estimate: Estimate | None = None


def preview(bench: Bench, cells: Sequence[Cell], *, only: str | None = None, retry: bool = False) -> Preview:
    """What `run_matrix` would do, without the time that it takes; writes nothing.

    Raises:
        BadInput: as `run_matrix`.
    """
    if bench.store.root.exists():
        bench.store.check(bench.data.digests)
    todo = open_cells(bench.store, cells, only=only, retry=retry)
    rows = [bench.store.read(cell) for cell in cells]
    states = [
        "refused"
        if cell.refusal is not None
        else "open"
        if cell in todo
        else "left out"
        if row is None
        else row["state"]
        for cell, row in zip(cells, rows, strict=True)
    ]
    towers = list({cell.tower.key: cell.tower.name for cell in todo if cell.tower is not None}.values())
    return Preview(cells, states, len({c.run_key for c in todo if c.trained and c.recipe is not None}), towers)


def timed(bench: Bench, seen: Preview, jobs: int, progress: Callable[[int, int], None]) -> Preview:
    """The preview with how long the open cells take, by those that are done or by a short probe in this process."""
    from n2kit.bench.estimate import estimate

    open_ = [cell for cell, state in zip(seen.cells, seen.states, strict=True) if state == "open"]
    if not open_:
        return seen
    done = [(c, row) for c in seen.cells if (row := bench.store.read(c)) is not None and row["state"] == "done"]
    return replace(seen, estimate=estimate(bench, open_, done, max(1, cpus() // jobs), progress))


def _environment(jobs: int) -> dict[str, Any]:
    """The machine that a matrix was last run on."""
    packages = {name: identity.installed(name) for name in PACKAGES}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "cpus": os.cpu_count() or 1}
    return machine | {"jobs": jobs, "threads": max(1, cpus() // jobs)} | packages
