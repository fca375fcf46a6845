"""A training that is killed with -9 and goes on, and what it learns: `python benchmarks/kill_and_resume.py --llm A --vision B`.

Builds a bundle, measures its recall on held-out pairs of EmojiNotes (the demo's items, in the package), trains it by `n2kit train`,
kills the process again and again, each time somewhere behind another checkpoint, gives the same command again, and measures the trained
bundle as the untrained one was. With `--unbroken` the training is done once more without a kill, and the weights are compared bit for bit.

With `--minutes N` it stops every command that writes instead, in many ways and at random times, on tiny models: see `interruptions.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from n2kit.demo.sources import unpack_items

N2KIT = [sys.executable, "-m", "n2kit_cli.main"]


def n2kit(*arguments: Any) -> str:
    """A command's standard output; ends this script if it fails."""
    done = subprocess.run([*N2KIT, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def make_data(work: Path, options: argparse.Namespace) -> None:
    """Some pairs of the training and of the validation split, and the items of the latter."""
    unpack_items(work / "emojinotes")
    rng = random.Random(options.seed)
    for name, count in (("train", options.pairs), ("val", options.val_pairs)):
        head, *rows = (work / "emojinotes" / f"{name}.csv").read_text().splitlines()
        (work / f"{name}.csv").write_text("\n".join([head, *rng.sample(rows, count)]) + "\n")
    wanted = {i for line in (work / "val.csv").read_text().splitlines()[1:] for i in line.split(",")}
    lines = (work / "emojinotes" / "items.jsonl").read_text().splitlines(keepends=True)
    (work / "val.jsonl").write_text("".join(line for line in lines if json.loads(line)["id"] in wanted))


def recall(bundle: Path, work: Path, options: argparse.Namespace) -> dict[str, float]:
    """By `n2kit embed` and `n2kit eval` among the items of the validation pairs."""
    vectors = work / f"{bundle.parent.name}-{bundle.name}.parquet"
    n2kit(
        "embed", bundle, "--items", work / "val.jsonl", "--images", work / "emojinotes" / "images", "-o", vectors, "--force",
        "--precision", options.precision,
    )  # fmt: skip
    figures = json.loads(n2kit("eval", "--vectors", vectors, "--pairs", work / "val.csv", "--k", "1,10", "--json"))
    return {f"recall@{k}": value for k, value in figures["recall"].items()}


def train(run: Path, work: Path, options: argparse.Namespace) -> list[Any]:
    return [
        "train", work / "untrained", "--items", work / "emojinotes" / "items.jsonl", "--images", work / "emojinotes" / "images",
        "--pairs", work / "train.csv", "--val-pairs", work / "val.csv", "-o", run, "--json", "--max-steps", options.steps,
        "--batch-size", options.batch_size, "--lr", options.lr, "--set", f"train.precision={options.precision}",
        "--set", "train.log_steps=1", "--set", f"train.save_steps={options.save_steps}", "--set", f"train.eval_steps={options.eval_steps}",
    ]  # fmt: skip


def kill_behind(step: int, command: list[Any], run: Path, rng: random.Random) -> int:
    """Start a command, and kill it somewhere in the step after one that is logged; the last step that was."""
    events = run / "events.jsonl"
    with subprocess.Popen(
        [*N2KIT, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (done := steps_of(events)) or done[-1]["step"] < step:
            if process.poll() is not None:
                sys.exit(f"the training ended before it could be killed: {process.stderr and process.stderr.read()}")
            time.sleep(0.01)
        time.sleep(rng.random() * (done[-1]["time"] - done[-2]["time"]))
        process.kill()
    if process.returncode != -signal.SIGKILL:
        sys.exit("the training ended before it could be killed: more --steps")
    return int(steps_of(events)[-1]["step"])


def steps_of(events: Path) -> list[dict[str, Any]]:
    """Return the logged steps, as far as they are written."""
    lines = events.read_text().splitlines() if events.is_file() else []
    return [e for e in (json.loads(line) for line in lines if line.endswith("}")) if e["event"] == "step"]


def same_weights(one: Path, two: Path) -> bool:
    files = sorted(f.relative_to(one) for f in one.rglob("*.safetensors"))
    return all((load_file(one / f)[k] == v).all() for f in files for k, v in load_file(two / f).items())


def measure(options: argparse.Namespace) -> dict[str, Any]:
    work, rng = Path(options.out), random.Random(options.seed)
    work.mkdir(parents=True, exist_ok=True)
    make_data(work, options)
    sets = ["head.width=256", "prompt.template=compact", *options.set]
    n2kit(
        "build", "--llm", options.llm, "--vision", options.vision, "--connector", options.connector, "--variant", options.variant,
        "--tune", options.tune, "-o", work / "untrained", "--force", *[w for s in sets for w in ("--set", s)],
    )  # fmt: skip
    before = recall(work / "untrained", work, options)
    run = work / "killed"
    command, kills = train(run, work, options), []
    for n in range(options.kills):
        step = max(options.save_steps + 1, options.steps * (n + 1) // (options.kills + 1))
        kills.append(kill_behind(step, command, run, rng))
    result = json.loads(n2kit(*command).splitlines()[-1])
    starts = [
        e["step"] for e in map(json.loads, (run / "events.jsonl").read_text().splitlines()) if e["event"] == "start"
    ]
    found = {
        "before": before, "after": recall(run / "bundle", work, options), "killed_behind": kills, "begun_at": starts,
        "best_step": result["best_step"], "steps": result["steps"], "loss": result["loss"], "frozen": result["frozen"],
    }  # fmt: skip
    if options.unbroken:
        n2kit(*train(work / "unbroken", work, options))
        found["bit_equal"] = same_weights(run / "bundle", work / "unbroken" / "bundle")
    return found


def table(found: dict[str, Any], options: argparse.Namespace) -> str:
    lines = [f"| {options.llm} + {options.vision} | recall@1 | recall@10 |", "|---|---|---|"]
    for name, row in (("untrained", found["before"]), ("trained", found["after"])):
        lines.append(f"| {name} | {row['recall@1']:.3f} | {row['recall@10']:.3f} |")
    lines.append("")
    lines.append(f"{found['steps']} steps; killed with -9 behind steps {', '.join(map(str, found['killed_behind']))};")
    lines.append(
        f"begun at steps {', '.join(map(str, found['begun_at']))}; step {found['best_step']} was best; {options.val_pairs} pairs"
    )
    if "bit_equal" in found:
        lines.append(f"weights of an unbroken run: {'the same, bit for bit' if found['bit_equal'] else 'OTHERS'}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="qwen:tiny", help="qwen@file:FOLDER for real weights")
    parser.add_argument("--vision", default="siglip:tiny")
    parser.add_argument("--connector", default="qformer:tiny")
    parser.add_argument("--variant", default="notellm2")
    parser.add_argument("--tune", default="llm=frozen")
    parser.add_argument("--set", action="append", default=[], help="a setting of the build; repeatable")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", default="2e-3")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--val-pairs", type=int, default=60)
    parser.add_argument("--save-steps", type=int, default=4)
    parser.add_argument("--eval-steps", type=int, default=10)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--precision", default="auto", help="fp32 for weights that are compared")
    parser.add_argument(
        "--unbroken", action="store_true", help="train once more without a kill, and compare the weights"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/kill_and_resume", help="a new folder for the run")
    parser.add_argument(
        "--minutes", type=float, help="stop many commands in many ways, for so long; no option but --seed counts"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.minutes is not None:
        import interruptions

        tallies = interruptions.run(options.minutes, options.seed)
        print(interruptions.table(tallies))
        sys.exit(any(tally.differences for tally in tallies.values()))
    found = measure(options)
    print(json.dumps(found, indent=1) if options.json else table(found, options))


if __name__ == "__main__":
    main()
