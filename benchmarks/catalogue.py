"""A catalogue from items to neighbours, killed, changed and checked: `python benchmarks/catalogue.py --items 20000`.

Small JPEG files, each with its own pixels, are embedded into a folder by a tiny random model; the process is killed five times by
SIGKILL. Then it is indexed, all neighbours are computed, 5 % of the items are replaced and 5 % deleted, and every item has to find
itself. Prints a table of what took how long, and the peak of each process's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MB = 1 << 20
PROGRAM = (sys.executable, "-m", "n2kit_cli.main")
KILLS = 5


class Watched:
    """A command of n2kit: its seconds, its CPU seconds, and the peak of its memory."""

    def __init__(self, *arguments: str | Path) -> None:
        self.begun = time.perf_counter()
        self.process = subprocess.Popen([*PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def wait(self) -> dict[str, float]:
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return {
            "seconds": time.perf_counter() - self.begun, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024 / MB,
        }  # fmt: skip

    def done(self) -> dict[str, float]:
        found = self.wait()
        if self.process.returncode:
            raise SystemExit(f"{self.process.args} failed: {self.process.returncode}")
        return found


def make_items(folder: Path, count: int) -> None:
    """Write items and their pictures: 24 × 24, of random colours."""
    from PIL import Image

    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with (folder / "items.jsonl").open("w") as file:
        for n in range(count):
            name = f"{n % 100:02d}/{n}.jpg"
            path = folder / "images" / name
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                small = rng.integers(0, 255, (3, 3, 3), np.uint8)
                Image.fromarray(small).resize((24, 24)).save(path)
            file.write(json.dumps({"id": f"i{n}", "image": name, "title": f"thing {n % 977} of kind {n % 31}"}) + "\n")


def killed_embed(folder: Path, count: int, shard: int) -> list[dict[str, float]]:
    """Embed, killed five times; return what each process took."""
    command = (
        "embed", folder / "model", "--items", folder / "items.jsonl", "--images", folder / "images", "-o", folder / "vectors",
        "--shard-size", str(shard), "--precision", "fp32",
    )  # fmt: skip
    runs, shards = [], -(-count // shard)
    for kill in range(KILLS):
        running = Watched(*command)
        while (
            running.process.poll() is None
            and len(list(folder.glob("vectors/shards/*.parquet"))) < shards * (kill + 1) // 8
        ):
            time.sleep(0.05)
        running.kill()
        runs.append(running.wait())
    runs.append(Watched(*command).done())
    return runs


def changed(folder: Path, count: int) -> tuple[Path, Path, int]:
    """Write vectors for 5 % of the items, and ids of another 5 %; return both files, and how many items are left."""
    from n2kit.embed import open_vectors
    from n2kit.embed.vectors_file import Vectors, write_table

    source, rng, part = open_vectors(folder / "vectors"), np.random.default_rng(1), count // 20
    new = rng.normal(size=(part, source.width)).astype(np.float32)
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    write_table(Vectors([f"i{n}" for n in range(part)], new, source.fingerprint), folder / "new.parquet")
    (folder / "gone.txt").write_text("".join(f"i{n}\n" for n in range(count - part, count)))
    return folder / "new.parquet", folder / "gone.txt", count - part


def self_search(index: Path) -> tuple[int, float]:
    """Search every vector of an index; return how many there are, and the share that finds itself, or what is equal to it."""
    from n2kit.index import load_index

    stored = load_index(index)
    hits = 0
    for start in range(0, len(stored.ids), 4096):
        rows = np.arange(start, min(start + 4096, len(stored.ids)))
        vectors = stored.index.vectors(rows)
        scores, found = stored.index.search(vectors, 1)
        hits += int(((found[:, 0] == rows) | (scores[:, 0] >= (vectors**2).sum(1) - 1e-5)).sum())
    return len(stored.ids), hits / len(stored.ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--shard-size", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=Path("catalogue-benchmark"))
    parser.add_argument("--types", default="flat,hnsw")
    options = parser.parse_args()
    folder, count = options.folder, options.items
    rows: list[tuple[str, float, float, float, str]] = []

    def note(what: str, took: dict[str, Any], result: str = "") -> None:
        rows.append((what, took["seconds"], took["cpu"], took["peak"], result))
        print(
            f"{what}: {took['seconds']:.1f} s, {took['cpu']:.1f} CPU s, peak {took['peak']:.0f} MB {result}",
            file=sys.stderr,
        )

    def timed(work: Callable[[], Any]) -> tuple[Any, float]:
        begun = time.perf_counter()
        return work(), time.perf_counter() - begun

    make_items(folder, count)
    if not (folder / "model").exists():
        Watched(
            "build",
            "--llm",
            "qwen:tiny",
            "--vision",
            "siglip:tiny",
            "--connector",
            "qformer:tiny",
            "-o",
            folder / "model",
        ).done()
    for number, run in enumerate(killed_embed(folder, count, options.shard_size), 1):
        note(f"embed, process {number}", run, "killed" if number <= KILLS else "finished")
    for kind in options.types.split(","):
        index = folder / f"{kind}.index"
        note(f"index {kind}", Watched("index", folder / "vectors", "-o", index, "--type", kind, "--force").done())
        note(
            f"neighbours {kind}",
            Watched("neighbours", index, "-k", "50", "-o", folder / f"{kind}.parquet", "--force").done(),
        )
        new, gone, left = changed(folder, count)
        note(f"upsert and delete {kind}", Watched("index", new, "-o", index, "--upsert", "--delete", gone).done())
        (there, share), seconds = timed(lambda index=index: self_search(index))  # type: ignore[misc]
        if there != left:
            raise SystemExit(f"{index} holds {there} items, and not {left}")
        print(f"{kind}: {there:,} items, {share:.2%} find themselves ({seconds:.1f} s)", file=sys.stderr)
        rows.append((f"self-search {kind}", seconds, seconds, 0, f"{share:.2%} of {there:,}"))
    print("| step | s | CPU s | peak, MB | |\n|---|---|---|---|---|")
    for what, seconds, cpu, peak, result in rows:
        print(f"| {what} | {seconds:.1f} | {cpu:.1f} | {peak:.0f} | {result} |")


if __name__ == "__main__":
    main()
