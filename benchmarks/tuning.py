"""Measure what training adds to a fitted bundle: arms × seeds, each against the fitted vectors by a paired bootstrap.

    python benchmarks/tuning.py SET -o OUT --llm SPEC --vision SPEC [--arms lora,last2] [--seeds 0,1,2] [--steps 96]

SET is a folder of items.jsonl, images/, train.csv, val.csv, test.csv and pool.csv, as `n2kit data demo` writes it. Each finished run is a
line of OUT/results.jsonl; the same command again goes on where it stopped. What is measured is the last step, so that nothing is chosen;
`kept` says whether `n2kit train` with best_metric=mrr would have taken it: whether it is ahead of the start by more than one standard error
on the validation pairs, among their own items. The arms:

    lora      adapters of rank 16 in the language model, which reads texts alone
    last2     its last two blocks, likewise
    hard      lora, with one hard negative a pair, mined in the fitted vectors of the training items
    multi     lora, with all known partners of a batch as positives, weighted by their grades
    joined    connector and projection of image and text joined, the language model frozen (variant joined_whitened)
    aligned   joined, after the connector has learnt to give a picture the language model's state of its own text
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import n2kit
from n2kit.data.items import Item, Items
from n2kit.data.pairs import Pairs
from n2kit.evaluate.bootstrap import paired
from n2kit.evaluate.compare import compare
from n2kit.evaluate.metrics import names
from n2kit.index.mining import Window, mine
from n2kit.train.best import Best

STEPS = {"train.warmup": 0.1, "train.keep_best": False, "train.eval_steps": 10_000, "train.save_steps": 10_000}
ADAPTER = {"llm": "lora:16"}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train from the fitted vectors."""

    tune: dict[str, str]
    lr: float
    start: str = "late"  # the fitted bundle: late, multi, joined or aligned
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    hard: bool = False


ARMS = {
    "lora": Arm(ADAPTER, 1e-4),
    "last2": Arm({"llm": "last:2"}, 1e-4),
    "hard": Arm(ADAPTER, 1e-4, settings={"train.hard_negatives": 1}, hard=True),
    "multi": Arm(ADAPTER, 1e-4, "multi"),
    "joined": Arm({"llm": "frozen", "vision": "frozen"}, 2e-4, "joined"),
    "aligned": Arm({"llm": "frozen", "vision": "frozen"}, 2e-4, "aligned"),
}


class Study:
    """A data set, the bundles that trainings start from, and how they are measured."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.data, self.out = options, options.set, options.out
        self.items = n2kit.read_items(self.data / "items.jsonl")
        self.pairs = {
            name: n2kit.read_pairs(self.data / f"{name}.csv", self.items) for name in ("train", "val", "test")
        }
        with (self.data / "pool.csv").open(encoding="utf8") as file:
            self.pool = [row[0] for row in csv.reader(file) if row and row[0] in self.items]
        self.tested = self.those({*self.of("val"), *self.of("test"), *self.pool})
        self.ensure_own()

    def of(self, name: str) -> set[str]:
        """Return the ids that pairs are of."""
        return {i for pair in self.pairs[name] for i in pair[:2]}

    def those(self, ids: set[str]) -> Items:
        """Return these items, in the order of the catalogue."""
        return Items([item for item in self.items if item.id in ids])

    def ensure_own(self) -> None:
        """Refuse a folder of other options: its runs are no seeds of these."""
        options = {
            name: str(value) for name, value in vars(self.options).items() if name not in ("out", "arms", "seeds")
        }
        file = self.out / "options.json"
        if file.exists() and (there := json.loads(file.read_text("utf8"))) != options:
            sys.exit(f"error: {self.out} is of {there}: give another -o")
        file.write_text(json.dumps(options), "utf8")

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Make a folder in one go, or take the one that was made."""
        folder: Path = self.out / name
        if not folder.is_dir():
            aside = folder.with_name(folder.name + ".part")
            shutil.rmtree(aside, ignore_errors=True)
            make(aside)
            aside.rename(folder)
        return folder

    def built(self, loss: str = "notellm2") -> Path:
        """Build the bundle that is fitted; the loss belongs to a bundle, and a training cannot change it."""
        frozen = {"llm.tune": "frozen", "vision.tune": "frozen", "prompt.template": "compact", "head.width": None}

        def make(folder: Path) -> None:
            n2kit.build(
                self.options.llm, self.options.vision, connector="mlp:4", variant="late_early_fusion",
                settings=frozen | {"loss.name": loss},
            ).save(folder)  # fmt: skip

        return self.once("built" if loss == "notellm2" else f"built-{loss}", make)

    def aligned(self) -> Path:
        """Train the connector on pairs of a picture and its own text: the teacher is the frozen language model's state of the text."""

        def make(folder: Path) -> None:
            both = [item for item in self.items if item.image and (item.title or item.topics or item.content)]
            seen = self.of("train")
            halves, own = [], []
            for item in both:
                if item.id in seen:
                    halves.append(dataclasses.replace(item, id=item.id + "#image", title="", topics=(), content=""))
                    halves.append(dataclasses.replace(item, id=item.id + "#text", image=""))
                    own.append((halves[-2].id, halves[-1].id))
            rows = [as_row(item) for item in halves]
            run = n2kit.train(
                self.built(), rows, own, images=self.data / "images", out=folder.with_name("alignment"),
                max_steps=self.options.align_steps, batch_size=self.options.batch, lr=1e-3, seed=0,
            )  # fmt: skip
            shutil.copytree(run.bundle, folder)

        return self.once("aligned-connector", make)

    def start(self, kind: str) -> Path:
        """Fit the bundle that an arm starts from."""
        variant: Any = "late_whitened" if kind in ("late", "multi") else "joined_whitened"
        base = self.aligned() if kind == "aligned" else self.built("multi-positive" if kind == "multi" else "notellm2")

        def make(folder: Path) -> None:
            made = n2kit.fit(
                n2kit.load(base), self.items, self.pairs["train"], val_pairs=self.pairs["val"], variant=variant,
                images=self.data / "images",
            )  # fmt: skip
            made.model.save(folder)

        return self.once(f"fitted-{kind}", make)

    def mined(self) -> Pairs:
        """Find one hard negative a pair in the fitted vectors of the training items."""
        vectors = self.out / "train.parquet"
        if not vectors.exists():
            n2kit.embed(self.start("late"), self.those(self.of("train")), images=self.data / "images", out=vectors)
        return mine(n2kit.Index.build(vectors).stored, self.pairs["train"], Window(count=1))

    def measured(self, bundle: Path, vectors: Path) -> n2kit.Evaluation:
        """Evaluate in float32: whitening lifts what is small, and what bf16 rounds away then moves recall by most of a point."""
        if not vectors.exists():
            n2kit.embed(bundle, self.tested, images=self.data / "images", out=vectors, precision="fp32")
        return n2kit.evaluate(vectors, self.pairs["test"], pool=self.pool, ks=(1, 10, 100))

    def kept(self, fitted: Path, trained: Path) -> bool:
        """Tell whether a training's vectors are ahead of the fitted ones by the rule of `n2kit train`."""
        pool = sorted(self.of("val"))  # validation embeds no other items
        values = [n2kit.evaluate(vectors, self.pairs["val"], pool=pool).report for vectors in (fitted, trained)]
        column = names(values[0].ks).index("mrr")
        best = Best("mrr")
        for step, report in enumerate(values):
            per_query = report.values()[0][:, column]
            best.update(step, {"mrr": per_query.mean()}, list(per_query))
        return best.step == 1

    def run(self, name: str, seed: int) -> dict[str, Any]:
        arm, began, cpu = ARMS[name], time.perf_counter(), time.process_time()
        start = self.start(arm.start)
        files = self.out / f"fitted-{arm.start}.parquet", self.out / f"{name}-{seed}.parquet"
        fitted = self.measured(start, files[0])
        pairs: Any = self.mined() if arm.hard else self.pairs["train"]
        run = n2kit.train(
            start, self.items, pairs, images=self.data / "images", val_pairs=self.pairs["val"], tune=arm.tune,
            lr=arm.lr, seed=seed, max_steps=self.options.steps, batch_size=self.options.batch,
            out=self.out / f"{name}-{seed}", settings=STEPS | arm.settings,
        )  # fmt: skip
        trained = self.measured(Path(run.bundle), files[1])
        change = compare(fitted.report, trained.report)["recall@10"]
        return {
            "arm": name, "seed": seed, "fitted": change.a, "trained": change.b, "difference": change.difference,
            "low": change.low, "high": change.high, "kept": self.kept(*files), "steps": self.options.steps,
            "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu,
        }  # fmt: skip

    def over_seeds(self, name: str, seeds: list[int]) -> dict[str, Any]:
        """Compare the mean of an arm's seeds with the fitted vectors, query by query: their pairs are the same."""
        start = ARMS[name].start
        fitted = self.measured(self.start(start), self.out / f"fitted-{start}.parquet").report
        reports = [
            self.measured(self.out / f"{name}-{s}" / "bundle", self.out / f"{name}-{s}.parquet").report for s in seeds
        ]
        column = names(fitted.ks).index("recall@10")
        trained = np.mean([report.values()[0][:, [column]] for report in reports], axis=0)
        change = paired(fitted.values()[0][:, [column]], trained, 1000, 0)
        return {"arm": name, "seeds": seeds} | {key: float(value[0]) for key, value in change._asdict().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--llm", required=True)
    parser.add_argument("--vision", required=True)
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--align-steps", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    log, study = options.out / "results.jsonl", Study(options)
    done = [json.loads(line) for line in log.read_text("utf8").splitlines()] if log.exists() else []
    for name in options.arms.split(","):
        for seed in map(int, options.seeds.split(",")):
            if not any((row["arm"], row["seed"]) == (name, seed) for row in done):
                row = study.run(name, seed)
                with log.open("a", encoding="utf8") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)
        print(json.dumps(study.over_seeds(name, [int(seed) for seed in options.seeds.split(",")])), flush=True)


def as_row(item: Item) -> dict[str, Any]:
    """Give an item as a dict, as users have them."""
    return {
        "id": item.id,
        "title": item.title,
        "topics": list(item.topics),
        "content": item.content,
        "image": item.image,
    }


if __name__ == "__main__":
    main()
