"""Commands that are stopped at random times, run out of disk, or run twice at once: does the same command end as an unbroken one?

Called by `python benchmarks/kill_and_resume.py --minutes 8`. Tiny models; every trial is of one command and one way:

SIGKILL, SIGINT, SIGTERM   up to three times, each at a random time of its run; SIGINT to all its processes, as a terminal sends it
full disk                  a small file system of random size (tmpfs: needs root), which is then made larger
two at once                the same command twice, on the same output

Then the command is given once more. It must end with 0, its result must equal that of an unbroken run bit by bit, and nothing of what
was stopped may be left beside it. Whatever was stopped must have ended with an exit code of its own or by its signal, without a traceback.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import forks

LONGEST = 300.0  # seconds until a command counts as one that hangs
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
FULL, TWICE = "full disk", "two at once"
WAYS = (*(s.name for s in SIGNALS), FULL, TWICE)
DEMO = """
from dataclasses import replace
import n2kit.demo.run, sys
from n2kit.data.pairs import Pairs
module, read = sys.modules["n2kit.demo.run"], sys.modules["n2kit.demo.run"].read_data
def few(folder):
    data = read(folder)
    test = Pairs(data.test.pairs[:12])
    return replace(data, train=Pairs(data.train.pairs[:32]), val=Pairs(data.val.pairs[:8]), test=test, pool=[b for _, b in test])
module.read_data, module.find_weights = few, lambda offline, notify: ("qwen:tiny", "siglip:tiny")
from n2kit_cli.main import main
main(["demo", "-o", sys.argv[1], "--steps", "1"])
"""


@dataclass
class Command:
    """A command, given the folder that it writes into, and what of that folder is its result."""

    arguments: Callable[[Path], list[Any]]
    results: tuple[str, ...]
    seconds: float = 0.0
    expected: str = ""
    size: int = 0


@dataclass
class Tally:
    """The trials of a command and a way, and what was wrong in them."""

    trials: int = 0
    stops: int = 0
    differences: list[str] = field(default_factory=list)


def n2kit(*words: Any) -> list[Any]:
    return ["-m", "n2kit_cli.main", *words]


def commands(work: Path) -> dict[str, Command]:
    items = ["--items", work / "items.jsonl", "--images", work / "images"]
    few = ["--items", work / "few.jsonl", "--images", work / "images"]
    train = [
        "train", work / "bundle", *few, "--pairs", work / "train.csv", "--val-pairs", work / "val.csv",
        "--max-steps", "12", "--batch-size", "4",
        "--set", "train.save_steps=3", "--set", "train.eval_steps=4", "--lr", "1e-3", "--json",
    ]  # fmt: skip
    bench = [
        "bench", "--llm", "qwen:tiny", "--vision", "siglip:tiny", "--connector", "mlp:4", "--variant", "basic,text_only",
        "--max-steps", "2", *few,
        "--pairs", work / "train.csv", "--test-pairs", work / "val.csv", "--bootstrap", "10",
    ]  # fmt: skip
    fit = ["fit", work / "bundle", *few, "--pairs", work / "train.csv"]
    build = ["build", "--llm", "qwen:tiny", "--vision", "siglip:tiny", "--force"]
    return {
        "build": Command(lambda out: n2kit(*build, "-o", out / "bundle"), ("bundle/**/*.safetensors",)),
        "embed": Command(lambda out: n2kit("embed", work / "bundle", *items, "-o", out / "v.parquet"), ("v.parquet",)),
        "index": Command(lambda out: n2kit("index", work / "vectors.parquet", "-o", out / "index", "--force"), ("index/*",)),
        "fit": Command(lambda out: n2kit(*fit, "-o", out / "run"), ("run/bundle/**/*.safetensors",)),
        "train": Command(lambda out: n2kit(*train, "-o", out / "run"), ("run/bundle/**/*.safetensors",)),
        "bench": Command(lambda out: n2kit(*bench, "-o", out / "bench"), ("bench/cells/*/ranks.parquet", "bench/cells/*/cell.json")),
        "demo": Command(lambda out: ["-c", DEMO, out / "demo"], ("demo/result.json",)),
    }  # fmt: skip


def make_data(work: Path, count: int, rng: random.Random) -> None:
    """Write items of few words, a few of them with an image, and pairs; build a bundle, and embed the items for an index."""
    (work / "images").mkdir(parents=True)
    for n in range(24):
        Image.new("RGB", (40, 30), (10 * n, 255 - 10 * n, 128)).save(work / "images" / f"{n}.png")
    rows = [
        {"id": f"i{n}", "title": f"thing {rng.random()}", "image": f"{n}.png" if n < 24 else ""} for n in range(count)
    ]
    for name, some in (("items", rows), ("few", rows[:24])):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    for name, some in (("train", range(0, 16, 2)), ("val", range(16, 24, 2))):
        (work / f"{name}.csv").write_text("query,target\n" + "".join(f"i{n},i{n + 1}\n" for n in some))
    todo = commands(work)
    for name, made, wanted in (("build", "bundle", "bundle"), ("embed", "v.parquet", "vectors.parquet")):
        finish(todo[name].arguments(work / "made"))
        (work / "made" / made).rename(work / wanted)


def finish(arguments: list[Any]) -> float:
    """Run a command that has to end well; return the seconds that it took."""
    began = time.monotonic()
    done = forks.run(arguments)
    if done.returncode:
        sys.exit(f"{arguments}: {done.stderr}")
    return time.monotonic() - began


def digest(out: Path, command: Command) -> str:
    """Hash a command's result: files as they are, of JSON the figures alone, which hold no time and no path."""
    found = hashlib.sha256()
    for file in sorted(path for pattern in command.results for path in out.glob(pattern) if path.is_file()):
        content = file.read_bytes()
        if file.suffix == ".json" and file.parent.name != "index":
            facts = json.loads(content)
            content = json.dumps(
                [facts.get(key) for key in ("arm", "state", "metrics", "recall")], sort_keys=True
            ).encode()
        if file.suffix == ".parquet":
            content = repr(pq.read_table(file).to_pydict()).encode()
        found.update(f"{file.relative_to(out)} {hashlib.sha256(content).hexdigest()}\n".encode())
    return found.hexdigest()


def leftovers(out: Path) -> list[str]:
    """List what is hidden beside results, but for locks, which stay."""
    return [str(p.relative_to(out)) for p in out.rglob(".*") if "lock" not in p.name]


@contextlib.contextmanager
def started(arguments: list[Any], errors: Path) -> Iterator[forks.Popen]:
    with errors.open("w") as err, forks.Popen(arguments, stdout=subprocess.DEVNULL, stderr=err) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: forks.Popen, errors: Path, allowed: tuple[int, ...], tally: Tally) -> int | None:
    """Wait for a command, and note what is wrong with its end."""
    try:
        code = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        tally.differences.append(f"did not end in {LONGEST:.0f} s")
        return None
    said = errors.read_text(errors="replace")
    if code not in allowed or "Traceback" in said:
        tally.differences.append(f"exit code {code}: {' / '.join(said.strip().splitlines()[-2:])}")
    return code


def trial(command: Command, way: str, out: Path, rng: random.Random, tally: Tally) -> None:
    """Do one trial, in an empty folder."""
    errors = out.with_name("stderr")
    arguments = command.arguments(out)
    if way == TWICE:
        with started(arguments, errors) as one, started(arguments, other := out.with_name("stderr-2")) as two:
            codes = [ended(one, errors, (0, 2), tally), ended(two, other, (0, 2), tally)]
        tally.stops += codes.count(2)
        if 0 not in codes:
            tally.differences.append(f"of two at once none ended well: {codes}")
    elif way == FULL:
        with started(arguments, errors) as process:
            tally.stops += ended(process, errors, (0, 3), tally) == 3
        subprocess.run(["mount", "-o", "remount,size=8g", out], check=True)
    else:
        number = signal.Signals[way]
        for _ in range(rng.randint(1, 3)):
            with started(arguments, errors) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(rng.random() * command.seconds)
                if process.poll() is None:
                    tally.stops += 1
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
                ended(process, errors, (0, 130, -number), tally)
    with started(arguments, errors) as process:
        if ended(process, errors, (0,), tally) == 0:
            if digest(out, command) != command.expected:
                tally.differences.append("another result than an unbroken run's")
            if left := leftovers(out):
                tally.differences.append(f"left behind: {', '.join(left[:3])}")


@contextlib.contextmanager
def fresh(work: Path, command: Command, way: str, rng: random.Random) -> Iterator[Path]:
    """Give an empty folder; for a full disk, a file system that holds a part of what the command writes."""
    out = work / "out"
    out.mkdir()
    mounted = way == FULL
    if mounted:
        size = rng.randint(16, max(17, command.size // 1024))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", out], check=True)
    try:
        yield out
    finally:
        if mounted:
            subprocess.run(["umount", "-l", out], check=True)
        shutil.rmtree(out)


def can_mount(work: Path) -> bool:
    """Try to mount a tmpfs, which needs root."""
    place = work / "mount"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", place], capture_output=True, check=False
    ).returncode:
        return False
    return subprocess.run(["umount", place], check=False).returncode == 0


def run(
    minutes: float, seed: int, *, names: list[str] | None = None, count: int = 1500
) -> dict[tuple[str, str], Tally]:
    """Do trials in a random order, each in its turn, until the time is over; return what was found by command and way."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="n2kit-interruptions-") as folder:
        work = Path(folder)
        os.environ.update(N2KIT_CACHE=str(work / "cache"), HF_HUB_OFFLINE="1")
        make_data(work, count, rng)
        chosen = {name: command for name, command in commands(work).items() if not names or name in names}
        for command in chosen.values():
            with fresh(work, command, "", rng) as out:
                command.seconds = finish(command.arguments(out))
                command.expected = digest(out, command)
                command.size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
        ways = [way for way in WAYS if way != FULL or can_mount(work)]
        if FULL not in ways:
            print(f"{FULL}: left out, since no file system can be mounted here", file=sys.stderr)
        found = {(name, way): Tally() for name in chosen for way in ways}
        ends = time.monotonic() + 60 * minutes
        while time.monotonic() < ends:
            for name, way in rng.sample(list(found), len(found)):
                if time.monotonic() < ends:
                    tally = found[name, way]
                    tally.trials += 1
                    with fresh(work, chosen[name], way, rng) as out:
                        trial(chosen[name], way, out, rng, tally)
        return found


def table(found: dict[tuple[str, str], Tally]) -> str:
    """Lay out trials, stops and differences by command and way, and the differences one by one."""
    ways = list(dict.fromkeys(way for _, way in found))
    lines = ["| command | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for name in dict.fromkeys(name for name, _ in found):
        cells = [
            f"{t.trials}, {t.stops} stopped: {len(t.differences) or 'no'} differences"
            for t in (found[name, way] for way in ways)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    sums = [
        sum(t.trials for t in found.values()),
        sum(t.stops for t in found.values()),
        sum(len(t.differences) for t in found.values()),
    ]
    lines += ["", f"{sums[0]} trials, {sums[1]} stops, {sums[2]} differences"]
    lines += [f"- {name}, {way}: {text}" for (name, way), t in found.items() for text in dict.fromkeys(t.differences)]
    return "\n".join(lines)
