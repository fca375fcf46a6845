"""Build, train, embed, index, recommend and evaluate five arms on EmojiNotes, and write the page."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from n2kit.bench.baselines.baselines import run_baseline
from n2kit.builder import build
from n2kit.bundle.io import read_manifest, save
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.demo.data import DemoData, read_data
from n2kit.demo.page import write_page
from n2kit.demo.result import ARMS, KS, LINEAR, MAIN, DemoArm, DemoResult, Example
from n2kit.demo.sources import ensure_demo_folder, find_weights
from n2kit.embed import embed, encode, read_vectors
from n2kit.errors import BadInput
from n2kit.evaluate import RankingReport, evaluate
from n2kit.index import build_index, load_index
from n2kit.inputs.feature_cache import feature_cache
from n2kit.inputs.state_cache import state_cache
from n2kit.modeling.model import Model
from n2kit.train import fit
from n2kit.utils.device import pick_precision
from n2kit.utils.files import read_json, write_json
from n2kit.utils.locks import output_lock

LOG = logging.getLogger("n2kit")
STEPS = 24
SHOWN = 12  # queries on the page, drawn by the seed
NEIGHBOURS = 6
SETTINGS: dict[str, Any] = {
    "llm.tune": "frozen",
    "llm.attention": "eager",
    "head.width": 256,
    "prompt.template": "compact",
    "train.batch_size": 32,
    "train.new_lr": 2e-3,
    "train.save_steps": 10**6,
    "train.log_steps": 1,
}
Notify = Callable[[str], None]
Progress = Callable[..., None]


def run(
    folder: Path,
    *,
    seed: int = 0,
    steps: int | None = None,
    offline: bool = False,
    notify: Notify = LOG.info,
    progress: Progress | None = None,
) -> DemoResult:
    """Run the demo in `folder`; results that are there already are not computed again.

    Args:
        notify: called with a line for people; by default they are logged.
        progress: called with steps done, steps in all, and a line.

    Raises:
        BadInput: `folder` is something else, or another process runs the demo in it.
        Unavailable: the demo's extra is not installed, or the language model can be had nowhere.
    """
    ensure_demo_folder(folder)
    with output_lock(folder):
        return _run(folder, seed, steps or STEPS, offline, notify, progress)


def _run(folder: Path, seed: int, steps: int, offline: bool, notify: Notify, progress: Progress | None) -> DemoResult:
    start = time.perf_counter()
    llm, vision = find_weights(offline, notify)
    data = read_data(folder)
    data = replace(data, train=_draw_pairs(data.train, seed, steps * SETTINGS["train.batch_size"]))
    arms: dict[str, DemoArm] = {}
    for number, (name, (variant, trained, title)) in enumerate(ARMS.items(), 1):
        state = folder / "arms" / f"{name}-seed{seed}-steps{steps}.json"
        if (done := _finished(state, folder)) is not None:
            arms[name] = done
            continue
        notify(f"[{number}/{len(ARMS)}] {title}")
        if variant == LINEAR:
            arms[name] = _train_linear(name, llm, vision, data, seed)
        else:
            model = _model(llm, vision, variant, seed, steps)
            arms[name] = _run_arm(name, model, data, trained, folder, progress)
        write_json(state, asdict(arms[name]))
    examples, report = _examples(folder, data, arms, seed)
    counts = {g: len(rows) for g, rows in data.groups(report).items()}
    result = DemoResult(
        folder,
        seed,
        steps,
        arms,
        examples,
        data.items,
        report.queries,
        report.pool,
        counts,
        time.perf_counter() - start,
    )
    write_json(folder / "result.json", result.to_dict())
    write_page(result, data.facts, data.images)
    return result


def _finished(state: Path, folder: Path) -> DemoArm | None:
    """Read the result of an arm that was finished before, unless its index or bundle is now that of another seed."""
    if not state.is_file():
        return None
    try:
        arm = DemoArm(**read_json(state))
        if arm.fingerprint:
            made = {load_index(folder / "index").fingerprint, read_manifest(folder / "bundle").fingerprint}
            if made != {arm.fingerprint}:
                return None
    except (BadInput, TypeError):  # damaged, or of the version before
        return None
    return arm


def _model(llm: str, vision: str, variant: str, seed: int, steps: int) -> Model:
    settings = SETTINGS | {"train.seed": seed, "train.max_steps": steps}
    connector = "mlp:4" if variant != "text_only" else None
    return build(llm, vision, connector=connector, variant=variant, settings=settings)


def _draw_pairs(pairs: Pairs, seed: int, count: int) -> Pairs:
    """Draw the pairs that every arm is trained on: as many as the steps take, so that all arms see the same."""
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:count]
    return Pairs([pairs.pairs[n] for n in chosen])


def _train_linear(name: str, llm: str, vision: str, data: DemoData, seed: int) -> DemoArm:
    """Train the simplest baseline, a linear layer, on the same pairs, with validation pairs to choose its steps by.

    Its time is that of the training and of all features that the training reads, though arms before it have computed most of them.
    """
    learnt = {i for pair in [*data.train, *data.val] for i in pair}
    items = Items([item for item in data.items if item.id in learnt.union(data.needed())])
    backbones = {k: v for k, v in SETTINGS.items() if not k.startswith("train.") and not k.endswith(".tune")}
    out = run_baseline(
        LINEAR, items=items, pairs=data.train, val_pairs=data.val, llm=llm, vision=vision, images=data.images,
        seed=seed, settings=backbones,
    )  # fmt: skip
    kept = dict(zip(out.ids, out.vectors, strict=True))
    wanted = data.needed()
    arm = _evaluate_arm(name, wanted, np.stack([kept[i] for i in wanted]), data)
    arm.train_s = out.costs["train_s"] + out.costs["embed_ms_item"] * len(learnt) / 1000
    return arm


def _run_arm(
    name: str,
    model: Model,
    data: DemoData,
    trained: bool,
    folder: Path,
    progress: Progress | None,
) -> DemoArm:
    seconds, loss = 0.0, None
    if trained:

        def show(event: dict[str, Any]) -> None:
            if progress and event["event"] == "step":
                progress(event["step"], event["steps"], f"{name} · loss {event.get('loss', 0):.2f}")

        fitted = fit(
            model,
            data.items,
            data.train,
            model.recipe.train,
            folder / "checkpoints" / name,
            images=data.images,
            report=show,
        )
        if fitted.interrupted:
            raise KeyboardInterrupt
        seconds, loss = fitted.seconds, fitted.loss

    def shown(done: int, total: int) -> None:
        if progress:
            progress(done, total, f"{name} · embedding")

    ids, vectors, fingerprint = _vectors(name, model, data, folder, shown)
    arm = _evaluate_arm(name, ids, vectors, data)
    arm.train_s, arm.loss, arm.fingerprint = seconds, loss, fingerprint
    return arm


def _evaluate_arm(name: str, ids: list[str], vectors: np.ndarray, data: DemoData) -> DemoArm:
    report = evaluate(ids, vectors, data.test, ks=KS, pool=data.pool)
    recall = {g: [report.at(k, rows) for k in KS] for g, rows in data.groups(report).items()}
    ranks = {a: int(r) for (a, _), r in zip(report.pairs, report.ranks, strict=True)}
    return DemoArm(name, recall, ranks)


def _vectors(
    name: str, model: Model, data: DemoData, folder: Path, progress: Callable[[int, int], None]
) -> tuple[list[str], np.ndarray, str]:
    """Embed the catalogue. The main arm is saved as a user would save it: a bundle, a vectors file, an index."""
    catalogue = Items([data.items[i] for i in data.needed()])
    if name != MAIN:
        dtype, _ = pick_precision("auto", model.device)
        most = model.recipe.train.feature_cache_gb
        encoded = encode(
            model, catalogue.items, images=data.images, progress=progress,
            cache=feature_cache(model.vision, most, data.images, dtype, memory=False),
            states=state_cache(model.llm, most, dtype, memory=False),
        )  # fmt: skip
        return encoded.ids, encoded.vectors, ""
    manifest = save(model, folder / "bundle", force=True)
    out = folder / "vectors.parquet"
    stored = embed(model, manifest.fingerprint, catalogue, out, images=data.images, force=True, progress=progress)
    build_index(out, folder / "index", force=True)
    return stored.ids, stored.vectors, manifest.fingerprint


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
