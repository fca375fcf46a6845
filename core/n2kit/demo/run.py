"""Run the arms of the demo on EmojiNotes, recommend from the index of the main one, and write the page."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from n2kit.bench.baselines.frozen import FrozenFeatures
from n2kit.bundle.io import read_manifest
from n2kit.data.pairs import Pairs
from n2kit.demo.arms import BATCH, COMPUTE, Progress, Setup
from n2kit.demo.data import DemoData, read_data
from n2kit.demo.eta import estimate
from n2kit.demo.page import write_page
from n2kit.demo.photographs import PHOTOGRAPH_ARMS, PhotographData, read_photographs, setup_of, show
from n2kit.demo.result import ARMS, KS, MAIN, DemoArm, DemoResult, Example
from n2kit.demo.sources import ensure_demo_folder, find_weights
from n2kit.embed import read_vectors
from n2kit.errors import BadInput
from n2kit.evaluate import RankingReport, evaluate
from n2kit.index import load_index
from n2kit.utils.durations import duration
from n2kit.utils.files import read_json, write_json
from n2kit.utils.locks import output_lock

LOG = logging.getLogger("n2kit")
STEPS, QUICK_STEPS = 24, 8
SHOWN = 12  # queries on the page, drawn by the seed
NEIGHBOURS = 6
Notify = Callable[[str], None]


def run(
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    quick: bool = False,
    photographs: Path | None = None,
    offline: bool = False,
    notify: Notify = LOG.info,
    progress: Progress | None = None,
) -> DemoResult:
    """Run the demo in `folder`; results that are there already are not computed again.

    Args:
        quick: a third of the catalogue and of the steps.
        photographs: a data folder of photographs, such as `n2kit data demo stamps` writes, for a tab of the page.
        notify: called with a line for people; by default they are logged.
        progress: called with steps done, steps in all, and a line.

    Raises:
        BadInput: `folder` is something else, another process runs the demo in it, or `photographs` lacks something.
        Unavailable: the demo's extra is not installed, or the language model can be had nowhere.
    """
    ensure_demo_folder(folder)
    shown = None if photographs is None else read_photographs(photographs)
    with output_lock(folder):
        steps = steps or (QUICK_STEPS if quick else STEPS)
        return _run(folder, seed, steps, quick, shown, offline, notify, progress)


def _run(
    folder: Path, seed: int, steps: int, quick: bool, photographs: PhotographData | None,
    offline: bool, notify: Notify, progress: Progress | None,
) -> DemoResult:  # fmt: skip
    start = time.perf_counter()
    llm, vision = find_weights(offline, notify)
    data = read_data(folder)
    if quick:
        data = data.quick()
    data = replace(data, train=_draw_pairs(data.train, seed, steps * BATCH))
    setup = Setup(llm, vision, data, seed, steps, folder, FrozenFeatures(progress=progress), progress)
    todo = _Arms(setup, list(ARMS), f"seed{seed}-steps{steps}{'-quick' if quick else ''}")
    further = None
    if photographs is not None:
        named = f"seed{seed}-{photographs.digest()}"
        further = _Arms(setup_of(setup, photographs), list(PHOTOGRAPH_ARMS), named)
    _announce(todo, further, notify)
    arms = todo.run(notify)
    examples, report = _examples(folder, data, arms, seed)
    counts = {g: len(rows) for g, rows in data.groups(report).items()}
    result = DemoResult(
        folder,
        seed,
        steps,
        len(data.train),
        arms,
        examples,
        data.items,
        report.queries,
        report.pool,
        counts,
        quick=quick,
    )
    if further is not None and photographs is not None:
        result.photographs = show(further.setup, photographs, further.run(notify, "photographs: "))
    result.seconds = time.perf_counter() - start
    write_json(folder / "result.json", result.to_dict())
    write_page(result, data.facts, data.images)
    return result


class _Arms:
    """Arms of a set of items, and those of them that were finished before: their results lie in files of this name."""

    def __init__(self, setup: Setup, names: list[str], called: str) -> None:
        self.setup, self.names = setup, names
        self.states = {name: setup.folder / "arms" / f"{name}-{called}.json" for name in names}
        found = {name: _finished(name, state, setup.folder) for name, state in self.states.items()}
        self.finished = {name: done for name, done in found.items() if done is not None}
        self.open = [name for name in names if name not in self.finished]

    def run(self, notify: Notify, of: str = "") -> dict[str, DemoArm]:
        """Compute the arms that are open; `of` tells which items."""
        for number, name in enumerate(self.names, 1):
            if name in self.open:
                notify(f"{of}[{number}/{len(self.names)}] {ARMS[name]}")
                self.finished[name] = COMPUTE[name](self.setup)
                write_json(self.states[name], asdict(self.finished[name]))
        return {name: self.finished[name] for name in self.names}


def _announce(drawings: _Arms, photographs: _Arms | None, notify: Notify) -> None:
    """Say which arms will run, and about how long that takes here."""
    todo = {"to run": drawings} | ({"to run on photographs": photographs} if photographs else {})
    todo = {what: arms for what, arms in todo.items() if arms.open}
    for what, arms in todo.items():
        notify(f"{what}: {'; '.join(ARMS[name] for name in arms.open)}")
    if todo:
        items = sum(len(arms.setup.items) for arms in todo.values())
        seconds = duration(estimate(drawings.setup, items, drawings.open))
        probed = f"about {seconds} on this machine, by a probe of a few items and two small steps"
        notify(f"{probed}; the linear layer and whitening take a little more")


def _finished(name: str, state: Path, folder: Path) -> DemoArm | None:
    """Read the result of an arm that was finished before; of the main one, unless its index or bundle is now that of another seed."""
    if not state.is_file():
        return None
    try:
        arm = DemoArm(**read_json(state))
        if name == MAIN:
            made = {load_index(folder / "index").fingerprint, read_manifest(folder / "bundle").fingerprint}
            if made != {arm.fingerprint}:
                return None
    except (BadInput, TypeError):  # damaged, or of the version before
        return None
    return arm


def _draw_pairs(pairs: Pairs, seed: int, count: int) -> Pairs:
    """Draw the pairs that every arm learns from: as many as the steps take, so that all arms see the same."""
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return Pairs([pairs.pairs[n] for n in chosen])


def _examples(folder: Path, data: DemoData, arms: dict[str, DemoArm], seed: int) -> tuple[list[Example], RankingReport]:
    """Recommend items for queries that the seed draws, from the index on disk; other queries are no candidates, as in the recall."""
    index = load_index(folder / "index")
    stored = read_vectors(folder / "vectors.parquet")
    report = evaluate(stored.ids, stored.vectors, data.test, ks=KS, pool=data.pool)
    queries = {a for a, _ in report.pairs}
    chosen = np.random.default_rng(seed).choice(len(report.pairs), size=min(SHOWN, len(report.pairs)), replace=False)
    examples = []
    for query, target in (report.pairs[n] for n in chosen):
        near = index.near_item(query, len(queries) + NEIGHBOURS)
        found = [(n.id, n.score) for n in near if n.id not in queries][:NEIGHBOURS]
        examples.append(Example(query, target, found, {n: a.ranks[query] for n, a in arms.items()}))
    return examples, report
