"""A whole matrix, from its cells to their rows."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from n2kit.bench import identity
from n2kit.bench.cells import Cell
from n2kit.bench.context import Bench
from n2kit.bench.local import cpus, run_local
from n2kit.bench.store import MATRIX
from n2kit.bench.tasks import open_cells, tasks
from n2kit.files import write_json

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


def _environment(jobs: int) -> dict[str, Any]:
    """The machine that a matrix was last run on."""
    packages = {name: identity.installed(name) for name in PACKAGES}
    machine = {"python": platform.python_version(), "platform": platform.platform(), "cpus": os.cpu_count() or 1}
    return machine | {"jobs": jobs, "threads": max(1, cpus() // jobs)} | packages
