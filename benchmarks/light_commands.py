"""Print the CPU seconds of commands that compute nothing, beside those of `hf --help`, and the cost of telling images apart.

python benchmarks/light_commands.py [IMAGES]      # default 20,000 files, scaled to a million
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from n2kit.data.image_digests import images_digest
from n2kit.data.items import Item

RUNS = 5
SIZE = 10_000  # bytes of an image


def cpu_seconds(command: list[str]) -> float:
    """Return the least CPU seconds of a command in several runs."""
    found = []
    for _ in range(RUNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(found)


def digest_seconds(count: int) -> list[float]:
    """Return the seconds of a first and of a second look at so many image files."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["N2KIT_CACHE"] = str(Path(folder, "cache"))
        images = Path(folder, "images")
        images.mkdir()
        for number in range(count):
            (images / f"{number}.bmp").write_bytes(os.urandom(SIZE))
        time.sleep(3)  # a file that was changed just now is not remembered
        items = [Item(str(number), f"{number}.bmp") for number in range(count)]
        found = []
        for _ in range(2):
            start = time.perf_counter()
            images_digest(items, images)
            found.append(time.perf_counter() - start)
        return found


def main() -> None:
    """Print both tables."""
    program = [sys.executable, "-m", "n2kit_cli.main"]
    commands = {"n2kit --help": [*program, "--help"], "n2kit plugins list": [*program, "plugins", "list"]}
    beside = Path(sys.executable).with_name("hf")
    if hf := (str(beside) if beside.is_file() else shutil.which("hf")):
        commands["hf --help"] = [hf, "--help"]
    print("| command | CPU s |\n|---|---|")
    for name, command in commands.items():
        print(f"| `{name}` | {cpu_seconds(command):.2f} |")
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print("\n| look | s | s for a million |\n|---|---|---|")
    for name, seconds in zip(("first", "second"), digest_seconds(count), strict=True):
        print(f"| {name} | {seconds:.2f} | {seconds / count * 1e6:.0f} |")


if __name__ == "__main__":
    main()
