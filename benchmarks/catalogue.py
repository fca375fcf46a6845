"""A catalogue from items to neighbours, killed, changed and checked: `python benchmarks/catalogue.py --items 20000,100000`.

Small JPEG files, each with its own pixels, are embedded into a folder by a tiny random model; the process is killed five times by
SIGKILL. Then it is indexed, all neighbours are computed, 5 % of the items are replaced and 5 % deleted, and every item has to find
itself. Counts and ids are checked after each step. Prints what each step took, and the peak of each process's memory by size.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MB = 1 << 20
PROGRAM = (sys.executable, "-m", "n2kit_cli.main")
KILLS = 5
K = 50
TINY = ("--llm", "qwen:tiny", "--vision", "siglip:tiny", "--connector", "qformer:tiny")


@dataclass(frozen=True)
class Took:
    """The costs of a process: seconds, CPU seconds, and the peak of its memory in MB."""

    seconds: float
    cpu: float
    peak: float


class Watched:
    """A command of n2kit in a process of its own."""

    def __init__(self, *arguments: str | Path) -> None:
        self.begun = time.perf_counter()
        self.process = subprocess.Popen([*PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL)

    def wait(self) -> Took:
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - self.begun
        return Took(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MB)

    def done(self) -> Took:
        found = self.wait()
        ensure(self.process.returncode == 0, f"{self.process.args} failed: {self.process.returncode}")
        return found


def ensure(right: bool, otherwise: str) -> None:
    if not right:
        raise SystemExit(f"wrong: {otherwise}")


def make_items(root: Path, count: int) -> Path:
    """Write items, and their pictures where they are not there: 24 × 24, of random colours."""
    from PIL import Image

    rng = np.random.default_rng(0)
    file = root / f"items-{count}.jsonl"
    with file.open("w") as lines:
        for n in range(count):
            name = f"{n % 100:02d}/{n}.jpg"
            small = rng.integers(0, 255, (3, 3, 3), np.uint8)
            path = root / "images" / name
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(small).resize((24, 24)).save(path)
            lines.write(json.dumps({"id": f"i{n}", "image": name, "title": f"thing {n % 977} of kind {n % 31}"}) + "\n")
    return file


def killed_embed(root: Path, folder: Path, items: Path, count: int, shard: int) -> list[Took]:
    """Embed, killed five times; return what each process took."""
    command = (
        "embed", root / "model", "--items", items, "--images", root / "images", "-o", folder / "vectors",
        "--shard-size", str(shard), "--precision", "fp32",
    )  # fmt: skip
    runs, shards = [], -(-count // shard)
    for kill in range(KILLS):
        running = Watched(*command)
        while len(list(folder.glob("vectors/shards/*.parquet"))) < shards * (kill + 1) // 8:
            ensure(running.process.poll() is None, "it has ended before it was killed")
            time.sleep(0.05)
        running.process.send_signal(signal.SIGKILL)
        runs.append(running.wait())
    runs.append(Watched(*command).done())
    return runs


def check_vectors(folder: Path, count: int) -> None:
    """Check that every item is there once, with a vector of its own."""
    from n2kit.embed import open_vectors

    seen: set[str] = set()
    for batch in open_vectors(folder / "vectors").batches():
        ensure(not seen & set(batch.ids), "an item is there twice")
        seen |= set(batch.ids)
        ensure(bool(np.allclose(np.linalg.norm(batch.vectors, axis=1), 1, atol=1e-4)), "a vector is not of length 1")
    ensure(seen == {f"i{n}" for n in range(count)}, f"{len(seen)} items of {count}")


def check_neighbours(file: Path, count: int) -> None:
    """Check that each item has K neighbours, and is none of its own."""
    import pyarrow.parquet as pq

    rows = 0
    for batch in pq.ParquetFile(file).iter_batches(columns=["id", "neighbour"]):
        rows += len(batch)
        ensure(not any(a == b for a, b in zip(*(c.to_pylist() for c in batch), strict=True)), "an item is its own")
    ensure(rows == K * count, f"{rows} neighbours of {count} items")


def changes(folder: Path, count: int) -> tuple[Path, Path, set[str]]:
    """Write vectors for 5 % of the items, and ids of another 5 %; return both files, and the ids that are left."""
    from n2kit.embed import open_vectors
    from n2kit.embed.vectors_file import Vectors, write_table

    source, rng, part = open_vectors(folder / "vectors"), np.random.default_rng(1), count // 20
    new = rng.normal(size=(part, source.width)).astype(np.float32)
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    write_table(Vectors([f"i{n}" for n in range(part)], new, source.fingerprint), folder / "new.parquet")
    (folder / "gone.txt").write_text("".join(f"i{n}\n" for n in range(count - part, count)))
    return folder / "new.parquet", folder / "gone.txt", {f"i{n}" for n in range(count - part)}


def self_search(index: Path, wanted: set[str]) -> tuple[float, float]:
    """Search every vector of an index; return the share that finds itself, or what is equal to it, and the seconds."""
    from n2kit.index import load_index
    from n2kit.index.store_building import close

    begun, stored, hits = time.perf_counter(), load_index(index), 0
    ensure(set(stored.ids) == wanted, f"{index} holds other items than it should")
    ensure(len(stored.ids) == len(wanted), f"{index} holds an item twice")
    for start in range(0, len(stored.ids), 4096):
        rows = np.arange(start, min(start + 4096, len(stored.ids)))
        vectors = stored.index.vectors(rows)
        scores, found = stored.index.search(vectors, 1)
        hits += int(((found[:, 0] == rows) | (scores[:, 0] >= (vectors**2).sum(1) - 1e-5)).sum())
    close(stored)  # milvus-lite serves one process at a time
    return hits / len(stored.ids), time.perf_counter() - begun


class Table:
    """The steps by size, printed as they end and as a table."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, tuple[Took, str]]] = {}

    def note(self, step: str, count: int, took: Took, result: str = "") -> None:
        self.rows.setdefault(step, {})[count] = took, result
        facts = f"{took.seconds:.1f} s, {took.cpu:.1f} CPU s, peak {took.peak:.0f} MB {result}"
        print(f"{count}: {step}: {facts}", file=sys.stderr, flush=True)

    def show(self, sizes: list[int]) -> None:
        most = sizes[-1]
        heads = [f"peak MB, {size:,}" for size in sizes]
        print(f"| step | CPU s, {most:,} | {' | '.join(heads)} | |\n|---|---|{'---|' * len(sizes)}---|")
        for step, by_size in self.rows.items():
            took, result = by_size[most]
            peaks = " | ".join(f"{by_size[size][0].peak:.0f}" for size in sizes)
            print(f"| {step} | {took.cpu:.1f} | {peaks} | {result} |")


def run(root: Path, count: int, shard: int, kinds: list[str], table: Table) -> None:
    """Do and check every step at one size."""
    folder, items = root / str(count), make_items(root, count)
    folder.mkdir(exist_ok=True)
    for number, took in enumerate(killed_embed(root, folder, items, count, shard), 1):
        table.note(f"embed, process {number}", count, took, "killed" if number <= KILLS else "finished")
    check_vectors(folder, count)
    every = {f"i{n}" for n in range(count)}
    for kind in kinds:
        index, file = folder / f"{kind}.index", folder / f"{kind}.parquet"
        took = Watched("index", folder / "vectors", "-o", index, "--type", kind, "--force").done()
        share, seconds = self_search(index, every)
        table.note(f"index {kind}", count, took, f"{share:.2%} find themselves ({seconds:.0f} s)")
        took = Watched("neighbours", index, "-k", str(K), "-o", file, "--force").done()
        check_neighbours(file, count)
        table.note(f"neighbours {kind}", count, took, f"{count / took.cpu:,.0f} items a CPU s")
        new, gone, left = changes(folder, count)
        took = Watched("index", new, "-o", index, "--upsert", "--delete", gone).done()
        share, seconds = self_search(index, left)
        table.note(f"upsert and delete {kind}", count, took, f"{share:.2%} of {len(left):,} find themselves")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", default="20000", help="sizes, the largest last")
    parser.add_argument("--shard-size", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=Path("catalogue-benchmark"), help="an empty one")
    parser.add_argument("--types", default="flat,hnsw")
    options = parser.parse_args()
    root, sizes, table = options.folder, [int(size) for size in options.items.split(",")], Table()
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "model").exists():
        Watched("build", *TINY, "-o", root / "model").done()
    for count in sizes:
        run(root, count, options.shard_size, options.types.split(","), table)
    table.show(sizes)


if __name__ == "__main__":
    main()
