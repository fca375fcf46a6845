"""Measure a server: requests a second, times, and errors under many clients at once, with batching and without; and `embed` beside it.

    python benchmarks/serve.py --bundle models/mine --items items.csv --clients 64 --seconds 60

Server and clients share this machine, over the loopback. A client sends one text, waits for its vector, and sends the next one.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

UNBATCHED = ["--batch-tokens", "1", "--batch-wait", "0"]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--texts", type=int, default=1000, help="the first ones of the items")
    asked = parser.parse_args()
    texts = _texts(asked.items)[: asked.texts]
    embedded = [embed_rates(asked.bundle, texts)]
    rows = {}
    for name, flags in (("batched", []), ("one by one", UNBATCHED)):
        with server(asked.bundle, [*flags, "--max-concurrent", str(2 * asked.clients)]) as (port, process):
            load(port, texts, asked.clients, 3)  # what is slow at first is not measured
            before = cpu_seconds(process)
            rows[name] = load(port, texts, asked.clients, asked.seconds)
            rows[name]["cpu"] = cpu_seconds(process) - before
        embedded.append(embed_rates(asked.bundle, texts))
    print_table(asked.clients, asked.seconds, rows, np.array(embedded))


def print_table(clients: int, seconds: float, rows: dict[str, dict[str, Any]], embedded: np.ndarray) -> None:
    """Print a line for each way to serve, and one for `embed`: texts a second, and a CPU second, before, between and after: [3, 2]."""
    own = embedded.mean(axis=0)
    print(
        f"| {clients} clients, {seconds:g} s | texts/s | share of `embed` | a CPU second | share | p50, ms | p99, ms | p99 / p50 | errors |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in rows.items():
        p50, p99 = np.percentile(row["seconds"], [50, 99]) * 1000
        rates = len(row["seconds"]) / np.array([row["took"], row["cpu"]])
        cells = [f"{rate:.1f} | {rate / one:.2f}" for rate, one in zip(rates, own, strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {p50:.0f} | {p99:.0f} | {p99 / p50:.2f} | {row['errors']} |")
    spread = " ".join(f"{rate:.1f}" for rate in embedded[:, 0])
    print(f"| `embed`, same texts, 3 runs: {spread} | {own[0]:.1f} | 1 | {own[1]:.1f} | 1 | | | | |")


def _texts(items: Path) -> list[str]:
    from n2kit.data.items import read_items

    return [item.title or ", ".join(item.topics) for item in read_items(items) if item.has_text]


@contextmanager
def server(bundle: str, flags: list[str]) -> Iterator[tuple[int, psutil.Process]]:
    """Start a server of a bundle as a program of its own; give its port, and the process."""
    command = [sys.executable, "-m", "n2kit_cli.main", "serve", "--bundle", bundle, "--port", "0", "--json", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        try:
            address = json.loads(running.stdout.readline())["address"]
            yield int(address.rpartition(":")[2]), psutil.Process(running.pid)
        finally:
            running.terminate()


def load(port: int, texts: list[str], clients: int, seconds: float) -> dict[str, Any]:
    """Let clients ask for so many seconds; return the time of each request, the errors, and how long it took."""
    began, times, errors = time.perf_counter(), list[float](), [0]

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        sent = number
        while time.perf_counter() - began < seconds:
            body = json.dumps({"input": texts[sent % len(texts)], "encoding_format": "base64"})
            sent += clients
            start = time.perf_counter()
            try:
                connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                errors[0] += answer.status != 200
            except OSError:
                errors[0] += 1
                connection.close()
            times.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": times, "errors": errors[0], "took": time.perf_counter() - began}


def cpu_seconds(process: psutil.Process) -> float:
    return process.cpu_times().user + process.cpu_times().system


def embed_rates(bundle: str, texts: list[str]) -> tuple[float, float]:
    """Return the texts that `embed` makes vectors of in a second, and in a second of CPU time, in a process of its own."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import serve; serve.print_rates({bundle!r})"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    wall, busy = json.loads(done.stdout)
    return wall, busy


def print_rates(bundle: str) -> None:
    """Embed texts that stdin holds, and print the rates."""
    import n2kit
    from n2kit.embed import encode

    model, texts = n2kit.load(bundle), json.load(sys.stdin)
    encode(model, texts[:64])  # what is slow at first is not measured
    start, before = time.perf_counter(), time.process_time()
    encode(model, texts)
    print(json.dumps([len(texts) / (time.perf_counter() - start), len(texts) / (time.process_time() - before)]))


if __name__ == "__main__":
    main()
