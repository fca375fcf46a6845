"""The README's commands and the outputs that it shows; `python tests/readme_commands.py` runs them and writes the outputs anew."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"```bash\n(?P<commands>.*?)```(?:\n\n<!-- output -->\n```text\n(?P<output>.*?)```)?", re.S)


def section(text: str, title: str) -> str:
    """Return a section of a page, without its title."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def lines(block: str) -> list[list[str]]:
    """Split a block into its commands, each into its words, without comments."""
    return [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(text: str) -> Iterator[tuple[list[list[str]], str | None]]:
    """Yield each block's commands, and the output that the page shows of the last of them."""
    for found in BLOCK.finditer(text):
        yield lines(found["commands"]), found["output"]


def main() -> None:
    """Run Quick start and Evaluate with the weights that they name, and write the outputs into the README."""
    text = README.read_text("utf8")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        for title in ("Quick start", "Evaluate"):
            before = section(text, title)
            text = text.replace(before, BLOCK.sub(lambda found: _with_output(found, folder), before))
    README.write_text(text, "utf8")


def _with_output(found: re.Match[str], folder: str) -> str:
    for _, *arguments in lines(found["commands"]):
        done = subprocess.run(
            [sys.executable, "-m", "n2kit_cli.main", *arguments], cwd=folder, capture_output=True, text=True
        )
        print(" ".join(arguments), done.stderr, sep="\n", file=sys.stderr)
        done.check_returncode()
    if found["output"] is None:
        return found[0]
    return f"```bash\n{found['commands']}```\n\n<!-- output -->\n```text\n{done.stdout}```"


if __name__ == "__main__":
    main()
