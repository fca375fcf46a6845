"""Time and peak memory of mining pairs from a skewed log, beside polars' streaming engine on the same query.

    python benchmarks/mine.py FOLDER [--events 20000000] [--memory 1GB] [--engine n2kit|polars|both] [--format parquet|csv]

Writes FOLDER/log.parquet once: users of log-normal activity, items of Zipf popularity, three months. Each engine runs in a process
of its own, whose largest resident size is what the system says of it. The score is the paper's; the best 20 targets of an item.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SEED, MONTHS = 0, 90 * 86_400
CHUNK = 1_000_000
MOST = 10_000_000_000  # bytes


def write_log(file: Path, events: int) -> None:
    """Write a log of so many events: user, item, time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(SEED)
    users, items = max(1, events // 20), max(10, events // 60)
    activity = np.cumsum(rng.lognormal(0, 1.2, users))
    popularity = np.cumsum(1 / np.arange(1, items + 1) ** 0.9)
    names = rng.permutation(items)
    schema = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.int64())])
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, events, CHUNK):
            count = min(CHUNK, events - start)
            user = np.searchsorted(activity, rng.random(count) * activity[-1])
            item = names[np.searchsorted(popularity, rng.random(count) * popularity[-1])]
            when = 1_700_000_000 + rng.integers(0, MONTHS, count)
            columns = [np.char.add("u", user.astype(str)), np.char.add("item-", item.astype(str)), when]
            writer.write_table(pa.table(columns, schema=schema))


def with_n2kit(log: Path, out: Path, memory: str) -> int:
    """Mine with n2kit; return the number of pairs."""
    from n2kit.mining import MineSettings, mine
    from n2kit.mining.settings import bytes_of

    def progress(done: int, total: int, note: str) -> None:
        if done % 50 == 0:
            print(f"{done}/{total} {note}", file=sys.stderr, flush=True)

    found = mine([log], out, MineSettings(), memory=bytes_of(memory), force=True, progress=progress)
    print(found.sentence(), found.pairs, file=sys.stderr)
    return int(found.pairs["written"])


def with_polars(log: Path, out: Path) -> int:
    """Mine with polars' streaming engine; return the number of pairs."""
    import polars as pl

    scan = pl.scan_parquet if log.suffix == ".parquet" else pl.scan_csv
    once = scan(log).group_by("user", "item").agg(first=pl.col("time").min(), last=pl.col("time").max())
    sizes = once.group_by("user").len("n")
    both = once.join(once, on="user", suffix="_b").filter(
        (pl.col("item") != pl.col("item_b")) & (pl.col("first") < pl.col("last_b"))
    )
    pairs = both.join(sizes, on="user").group_by(query="item", target="item_b").agg(score=(1 / pl.col("n")).sum())
    best = pairs.filter(pl.col("score").rank("ordinal", descending=True).over("query") <= 20)
    best.sink_parquet(out / "polars.parquet", engine="streaming")
    return int(pl.scan_parquet(out / "polars.parquet").select(pl.len()).collect().item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--engine", choices=("n2kit", "polars", "both"), default="both")
    parser.add_argument("--one", action="store_true", help="run in this process, and print seconds, peak and pairs")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    log = given.folder / f"log.{given.format}"
    if not (given.folder / "log.parquet").exists():
        write_log(given.folder / "log.parquet", given.events)
    if not log.exists():
        import pyarrow.csv
        import pyarrow.parquet as pq

        with pyarrow.csv.CSVWriter(log, pq.read_schema(given.folder / "log.parquet")) as writer:
            for batch in pq.ParquetFile(given.folder / "log.parquet").iter_batches():
                writer.write_batch(batch)
    if given.one:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST, MOST))  # an engine that takes more ends, and not the machine
        start = time.perf_counter()
        out = given.folder / "mined"
        out.mkdir(exist_ok=True)
        pairs = with_n2kit(log, out, given.memory) if given.engine == "n2kit" else with_polars(log, out)
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = time.perf_counter() - start
        print(
            f"| {given.engine} | {seconds:.0f} | {used.ru_utime + used.ru_stime:.0f} | {used.ru_maxrss / 1e6:.2f} | {pairs:,} |"
        )
        return
    print("| engine | wall s | CPU s | peak GB | pairs |\n|---|---|---|---|---|", flush=True)
    for engine in ("n2kit", "polars") if given.engine == "both" else (given.engine,):
        command = [sys.executable, __file__, str(given.folder), "--events", str(given.events), "--memory", given.memory]
        done = subprocess.run(
            [*command, "--format", given.format, "--engine", engine, "--one"], check=False, env=os.environ
        )
        if done.returncode:
            print(f"| {engine} | ended with {done.returncode} | | | |", flush=True)


if __name__ == "__main__":
    main()
