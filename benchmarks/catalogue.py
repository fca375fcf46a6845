"""A catalogue from items to neighbours, killed, changed and checked: `python benchmarks/catalogue.py --items 20000,100000`.

Small JPEG files, each with its own pixels, are embedded into a folder by a tiny random model; the process is killed five times by
SIGKILL. Then it is indexed, all neighbours are computed, 5 % of the items are replaced and 5 % deleted, and every item has to find
itself. With `--ray` a local Ray does the same, killed likewise, and has to write the same bytes. Counts and ids are checked after each
step. Prints what each step took, and the peak of each process's memory by size; of Ray's actors neither memory nor CPU seconds are seen.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
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

    def __init__(self, *arguments: str | Path, cache: Path | None = None) -> None:
        self.begun = time.perf_counter()
        own = {} if cache is None else {"XDG_CACHE_HOME": str(cache)}  # features of another run are no part of this one
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL, env={**os.environ, **own}
        )

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


def killed_embed(root: Path, out: Path, items: Path, count: int, shard: int, *engine: str) -> list[Took]:
    """Embed, killed five times; return what each process took."""
    command = (
        "embed", root / "model", "--items", items, "--images", root / "images", "-o", out,
        "--shard-size", str(shard), "--precision", "fp32", *engine,
    )  # fmt: skip
    runs, shards, cache = [], -(-count // shard), out.parent / f"cache-{out.name}"
    for kill in range(KILLS):
        running = Watched(*command, cache=cache)
        while len(list(out.glob("shards/*.parquet"))) < shards * (kill + 1) // 8:
            ensure(running.process.poll() is None, "it has ended before it was killed")
            time.sleep(0.05)
        running.process.send_signal(signal.SIGKILL)
        runs.append(running.wait())
    runs.append(Watched(*command, cache=cache).done())
    shutil.rmtree(cache, ignore_errors=True)
    return runs


def check_equal(one: Path, other: Path) -> None:
    """Check that two folders of vectors hold the same bytes."""
    names = [sorted(file.name for file in folder.glob("shards/*")) for folder in (one, other)]
    ensure(names[0] == names[1], f"{one} and {other} have other shards")
    for name in ("manifest.json", *(f"shards/{name}" for name in names[0])):
        ensure((one / name).read_bytes() == (other / name).read_bytes(), f"{name} differs in {one} and {other}")


def check_vectors(folder: Path, count: int) -> None:
    """Check that every item is there once, with a vector of its own."""
    from n2kit.embed import open_vectors

    seen: set[str] = set()
    for batch in open_vectors(folder).batches():
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


def self_search(index: Path, wanted: set[str], most: int) -> str:
    """Search vectors of an index, `most` of them where it has more: say which share finds itself, or what is equal to it."""
    from n2kit.index import load_index
    from n2kit.index.store_building import close

    begun, stored, hits = time.perf_counter(), load_index(index), 0
    ensure(set(stored.ids) == wanted, f"{index} holds other items than it should")
    ensure(len(stored.ids) == len(wanted), f"{index} holds an item twice")
    some = np.random.default_rng(2).permutation(len(stored.ids))[:most]
    for start in range(0, len(some), 4096):
        rows = some[start : start + 4096]
        vectors = stored.index.vectors(rows)
        scores, found = stored.index.search(vectors, 1)
        hits += int(((found[:, 0] == rows) | (scores[:, 0] >= (vectors**2).sum(1) - 1e-5)).sum())
    close(stored)  # milvus-lite serves one process at a time
    return f"{hits / len(some):.2%} of {len(some):,} find themselves ({time.perf_counter() - begun:.0f} s)"


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
        print(f"| step | s, {most:,} | CPU s | {' | '.join(heads)} | |\n|---|---|---|{'---|' * len(sizes)}---|")
        for step, by_size in self.rows.items():
            took, result = by_size[most]
            peaks = " | ".join(f"{by_size[size][0].peak:.0f}" for size in sizes)
            print(f"| {step} | {took.seconds:.1f} | {took.cpu:.1f} | {peaks} | {result} |")


@dataclass(frozen=True)
class Steps:
    """The steps that are done at each size: index types, of which of them neighbours, how many search themselves, and whether Ray too."""

    kinds: list[str]
    neighbours: list[str]
    searched: int
    ray: bool


def run(root: Path, count: int, shard: int, steps: Steps, table: Table) -> None:
    """Do and check every step at one size."""
    folder, items = root / str(count), make_items(root, count)
    folder.mkdir(exist_ok=True)
    embedded(root, folder / "vectors", items, count, shard, table)
    every = {f"i{n}" for n in range(count)}
    for kind in steps.kinds:
        index, file = folder / f"{kind}.index", folder / f"{kind}.parquet"
        took = Watched("index", folder / "vectors", "-o", index, "--type", kind, "--force").done()
        table.note(f"index `{kind}`", count, took, self_search(index, every, steps.searched))
        if kind in steps.neighbours:
            took = Watched("neighbours", index, "-k", str(K), "-o", file, "--force").done()
            check_neighbours(file, count)
            table.note(f"neighbours, `{kind}`", count, took, f"{count / took.cpu:,.0f} items a CPU s")
        if steps.ray and kind == "flat":
            by_ray(root, folder, items, count, shard, table)
        new, gone, left = changes(folder, count)
        took = Watched("index", new, "-o", index, "--upsert", "--delete", gone).done()
        table.note(f"upsert and delete, `{kind}`", count, took, self_search(index, left, steps.searched))


def embedded(root: Path, out: Path, items: Path, count: int, shard: int, table: Table, *engine: str) -> None:
    """Embed, killed, and check what is there; vectors that an earlier call finished are taken as they are."""
    name = "embed by Ray" if engine else "embed"
    if (out / "manifest.json").exists():
        check_vectors(out, count)
        return
    for number, took in enumerate(killed_embed(root, out, items, count, shard, *engine), 1):
        table.note(f"{name}, process {number}", count, took, "killed" if number <= KILLS else "finished")
    check_vectors(out, count)


def by_ray(root: Path, folder: Path, items: Path, count: int, shard: int, table: Table) -> None:
    """Embed and find neighbours by a local Ray, killed likewise; both have to be equal to what is there byte by byte."""
    ray = ("--engine", "ray", "--jobs", "2")
    embedded(root, folder / "by-ray", items, count, shard, table, *ray)
    check_equal(folder / "vectors", folder / "by-ray")
    found = folder / "flat-by-ray.parquet"
    took = Watched("neighbours", folder / "flat.index", "-k", str(K), "-o", found, "--force", *ray).done()
    if (folder / "flat.parquet").exists():
        ensure(found.read_bytes() == (folder / "flat.parquet").read_bytes(), "Ray has found other neighbours")
    check_neighbours(found, count)
    table.note("neighbours by Ray, `flat`", count, took, "equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", default="20000", help="sizes, the largest last")
    parser.add_argument("--shard-size", type=int, default=1024)
    parser.add_argument("--folder", type=Path, default=Path("catalogue-benchmark"), help="an empty one")
    parser.add_argument("--types", default="flat,hnsw", help="of indexes, stores too: flat,hnsw,lancedb,milvus")
    parser.add_argument("--neighbours", help="the types of which neighbours are computed; by default all")
    parser.add_argument(
        "--searched", type=int, default=1 << 40, help="items that have to find themselves; by default all"
    )
    parser.add_argument("--ray", action="store_true", help="the same by a local Ray")
    options = parser.parse_args()
    root, sizes, table = options.folder, [int(size) for size in options.items.split(",")], Table()
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "model").exists():
        Watched("build", *TINY, "-o", root / "model").done()
    kinds = options.types.split(",")
    steps = Steps(kinds, (options.neighbours or options.types).split(","), options.searched, options.ray)
    for count in sizes:
        run(root, count, options.shard_size, steps, table)
    table.show(sizes)


if __name__ == "__main__":
    main()
