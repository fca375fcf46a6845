"""A training step's cost, against a naive loop, trick by trick: `python benchmarks/train_step.py --llm file:A --vision file:B`.

The naive loop decodes and encodes both images of every pair, pads to the longest row there can be, computes the logits of the
vocabulary as a causal LM's own forward does, encodes an item once for each of its pairs, and reads all rows in one call. Each
arm adds one trick to those before it; all compute in float32, and the last one once more in bf16. A step here is reading,
forward and backward; the optimiser's part is the same for all. All arms run in one process on the same threads, by the same
weights, and each one's loss and gradients are compared with the naive loop's on the same pairs. Operations are counted beside
(products, convolutions, attention where torch counts it; later epochs): they do not hang on what else the machine does.

    --items items.jsonl --pairs train.csv --images DIR     a catalogue of your own; by default one of noise is made
    --variant only_late_fusion --tune frozen --template en  what is trained, and with which prompt
    --parts 2     a naive step that does not fit into memory is taken as two steps of half the pairs, which is as much work
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from synthetic import add_data_options, add_model_options, build_model, catalogue
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.inputs.feature_cache import feature_cache
from n2kit.inputs.reader import Reader
from n2kit.inputs.state_cache import state_cache
from n2kit.modeling.model import Model
from n2kit.train.pairs import PairCollator
from n2kit.train.step import TrainStep
from n2kit.utils.device import keep_freed_memory, pick_precision

Pair = tuple[str, str]


@dataclass(frozen=True)
class Arm:
    """The tricks that are on."""

    name: str
    logits: bool = True
    cached: bool = False
    trimmed: bool = False
    distinct: bool = False
    sorted: bool = False
    start: bool = False
    states: bool = False
    bf16: bool = False


TRICKS = {
    "no logits": "logits", "features cached": "cached", "padding trimmed": "trimmed", "items once": "distinct",
    "sorted, by token budget": "sorted", "start shared": "start", "states cached": "states", "bf16": "bf16",
}  # fmt: skip


def arms(bf16: bool) -> list[Arm]:
    """The naive loop, and one trick more at a time."""
    out = [Arm("naive")]
    for name, key in TRICKS.items():
        if key != "bf16" or bf16:
            out.append(replace(out[-1], name=f"+ {name}", **{key: key != "logits"}))
    return out


@dataclass
class Bench:
    """One model and its data; `store` is where the arms keep features and states."""

    model: Model
    items: Items
    pairs: Pairs
    images: Path
    longest: int
    parts: int

    def reader(self, arm: Arm, store: Path | None) -> Reader:
        """A reader with empty memory; what is on disk at `store` it takes from there."""
        reader = Reader(self.model.prompt_builder, self.model.vision, self.images)
        dtype = torch.bfloat16 if arm.bf16 else torch.float32
        if arm.cached:
            reader.cache = feature_cache(self.model.vision, 10.0, self.images, dtype)
        if arm.states:
            reader.states = state_cache(self.model.llm, 10.0, dtype)
        for kept in (reader.cache, reader.states):
            if kept is not None and kept.store is not None and store is not None:
                kept.store.root = store
            elif kept is not None:
                kept.store = None
        return reader

    def read(self, arm: Arm, reader: Reader, pairs: list[Pair]) -> dict[str, Any]:
        """A batch as the arm would have it."""
        collator = PairCollator(self.items, self.pairs, reader)
        if arm.distinct:
            inputs = collator(pairs)
        else:
            ids = [a for a, _ in pairs] + [b for _, b in pairs]
            batch, _ = reader([self.items[i] for i in ids])
            inputs = {"batch": batch, "exclude": collator.extras.known(ids)[0]}
        return {name: inputs[name] for name in ("batch", "item_index", "exclude") if name in inputs}

    @contextmanager
    def tricks(self, arm: Arm) -> Iterator[TrainStep]:
        """The step with what the arm leaves out put back."""
        options, hooks, kept = self.model.execution_options, [], []
        self.model.execution_options = replace(
            options, share_prefix=arm.start, max_tokens=options.max_tokens if arm.sorted else None
        )
        if not arm.trimmed:
            hooks.append(self.model.llm.register_forward_pre_hook(lambda _, given: (widened(given[0], self.longest),)))
        if arm.logits:
            ids = torch.arange(self.model.llm.card.vocab)[None]
            table = self.model.llm.embed(ids)[0].detach()

            def head(_: Any, __: Any, states: Tensor) -> None:
                kept[:] = [F.linear(states, table)]  # alive until the next, as in a loop that has them as an output

            if table.shape[-1] == self.model.llm.card.output_width:
                hooks.append(self.model.llm.register_forward_hook(head))
        try:
            yield TrainStep(self.model, torch.bfloat16 if arm.bf16 else torch.float32)
        finally:
            self.model.execution_options = options
            for hook in hooks:
                hook.remove()

    def gradient(self, arm: Arm, reader: Reader, pairs: list[Pair]) -> tuple[float, dict[str, Tensor]]:
        """Loss and gradients of one batch."""
        with self.tricks(arm) as step:
            step.zero_grad()
            loss = step(**self.read(arm, reader, pairs))["loss"]
            loss.backward()
            found = {n: p.grad.clone() for n, p in step.named_parameters() if p.grad is not None}
            step.zero_grad()
        return loss.item(), found

    def epoch(self, arm: Arm, reader: Reader, batches: list[list[Pair]]) -> dict[str, float]:
        """Wall and CPU seconds a step; a step whose rows are neither trimmed nor few is taken in parts."""
        parts = 1 if arm.trimmed else self.parts
        wall, cpu = time.perf_counter(), time.process_time()
        with self.tricks(arm) as step:
            for pairs in batches:
                for n in range(parts):
                    step.zero_grad()
                    step(**self.read(arm, reader, pairs[n::parts]))["loss"].backward()
            step.zero_grad()
        spent = time.perf_counter() - wall, time.process_time() - cpu
        return {"wall": spent[0] / len(batches), "cpu": spent[1] / len(batches)}


def widened(x: Tensor, width: int) -> Tensor:
    """x [B, T, De] padded to `width` tokens; the model itself would pass no padding on to the LLM."""
    return F.pad(x, (0, 0, 0, width - x.shape[1]))


def longest_row(model: Model) -> int:
    """Tokens of the longest row that the settings allow: what a loop without a look at its data pads to."""
    prompt_builder = model.prompt_builder
    return (
        len(prompt_builder.start)
        + prompt_builder.body_tokens
        + len(prompt_builder.suffix)
        + max(0, prompt_builder.image_tokens - 1)
    )


def differences(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Norm of the difference of two gradients over the norm of the first; one that is absent is zero."""
    off = sum(float((one[n] - two.get(n, torch.zeros_like(one[n]))).double().pow(2).sum()) for n in one)
    return float((off / sum(float(g.double().pow(2).sum()) for g in one.values())) ** 0.5)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    keep_freed_memory()
    model = build_model(options)
    items, pairs, images = catalogue(options, folder)
    bench = Bench(model, items, pairs, images, longest_row(model), options.parts)
    order = random.Random(0).sample(list(pairs), min(len(pairs), options.steps * options.batch_size))
    batches = [order[n : n + options.batch_size] for n in range(0, len(order), options.batch_size)]
    few = batches[0][: options.compare]
    fast = pick_precision("auto", torch.device("cpu"))[0] == torch.bfloat16
    chosen = arms(options.bf16 or (fast and not options.brief))
    chosen = [a for a in chosen if not options.brief or a.states or a == chosen[0]]
    naive, rows = None, []
    for arm in chosen:
        kept = folder / "kept"
        reader = bench.reader(arm, kept if arm.cached else None)
        found = bench.gradient(
            arm, reader, few
        )  # which also fills the processor's caches, and the others for these pairs
        naive = naive or found
        row: dict[str, Any] = {"arm": arm.name}
        if arm.cached:
            for batch in batches:  # so that no picture and no constant prompt is new any more
                bench.read(arm, reader, batch)
        with FlopCounterMode(display=False) as counter:
            bench.gradient(arm, reader, few)
        row["gflop_a_pair"] = counter.get_total_flops() / len(few) / 1e9
        row["later"] = bench.epoch(arm, reader, batches if arm.trimmed else batches[:1])
        row |= {"loss_off": abs(found[0] - naive[0]), "gradient_off": differences(naive[1], found[1])}
        rows.append(row)
        print(f"{arm.name}: {row['later']['cpu']:.3f} CPU s a step", file=sys.stderr, flush=True)
    rows[0]["first"] = rows[0]["later"]  # every epoch is the first
    for row, arm in zip(rows, chosen, strict=True):
        if arm.states:
            row["first"] = bench.epoch(arm, bench.reader(arm, folder / f"first-{arm.bf16}"), batches)
    distinct = [len({i for pair in batch for i in pair}) for batch in batches]
    return {
        "llm": options.llm, "vision": options.vision, "connector": options.connector, "variant": options.variant,
        "tune": options.tune, "template": options.template, "threads": torch.get_num_threads(), "steps": len(batches),
        "batch_size": options.batch_size, "naive_parts": options.parts, "compared_pairs": len(few),
        "distinct_items": sum(distinct) / len(distinct), "longest_row": bench.longest, "arms": rows,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    naive, work = result["arms"][0]["later"]["cpu"], result["arms"][0]["gflop_a_pair"]
    lines = [
        f"{result['variant']}, LLM {result['tune']}, prompt {result['template']}: {result['batch_size']} pairs a step, "
        f"{result['distinct_items']:.1f} distinct items of them, {result['threads']} threads; loss and gradients compared on "
        f"{result['compared_pairs']} pairs",
        "",
        "| | first epoch, CPU s a step | times naive | later epochs, CPU s a step | times naive | wall s | GFLOP a pair | times naive "
        "| loss off | gradient off |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["arms"]:
        later, first = row["later"], row.get("first")
        begun = f"{first['cpu']:.3f} | {naive / first['cpu']:.1f}" if first else "|"
        lines.append(
            f"| {row['arm']} | {begun} | {later['cpu']:.3f} | {naive / later['cpu']:.1f} | {later['wall']:.3f} "
            f"| {row['gflop_a_pair']:.3f} | {work / max(row['gflop_a_pair'], 1e-9):.1f} "
            f"| {row['loss_off']:.1e} | {row['gradient_off']:.1e} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    add_data_options(parser)
    parser.add_argument("--batch-size", type=int, default=32, help="pairs a step")
    parser.add_argument("--steps", type=int, default=2, help="steps of an epoch; arms before trimming take one")
    parser.add_argument("--parts", type=int, default=1, help="steps that a naive step is cut into")
    parser.add_argument("--compare", type=int, default=8, help="pairs by which loss and gradients are compared")
    parser.add_argument("--brief", action="store_true", help="the naive loop and all tricks together, nothing between")
    parser.add_argument("--bf16", action="store_true", help="measure bf16 even where it does not pay")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options, Path(folder))
    print(json.dumps(result, indent=1) if options.json else table(result))


if __name__ == "__main__":
    main()
