"""Printing: stdout is data, stderr is everything else."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

from n2kit.utils.launcher import is_launched

# What moves a terminal's cursor, colours it or turns its text around; a file's content or name may hold it.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

data_streams: list[TextIO] = []


def fancy(stream: Any) -> bool:
    """Tell whether a stream is a terminal that may get colours and boxes."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ


def data() -> TextIO:
    """Return the stream that data is written to: stdout, as it was before a command began (`n2kit_cli.stdout`)."""
    return data_streams[-1] if data_streams else sys.stdout


def emit(*what: object, end: str = "\n", flush: bool = False) -> None:
    """Print data for people; `print` itself goes to stderr while a command runs."""
    print(*(printable(str(one), keep="\n\t") for one in what), end=end, file=data(), flush=flush)


def say(text: str) -> None:
    """Print a remark for people on stderr."""
    print(printable(text, keep="\n\t"), file=sys.stderr, flush=True)


def printable(text: str, keep: str = "") -> str:
    """Write out the characters that would drive a terminal (`\\x1b`), or turn the order of a line: ids are strangers' texts."""
    return CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def document(value: Any) -> None:
    """Print the one JSON document of `--json`."""
    print(json.dumps(value, ensure_ascii=False, indent=1, default=str, allow_nan=False), file=data())


def event(value: Mapping[str, Any]) -> None:
    """Print one line of an NDJSON stream. A reader that has gone stops no work: its results are files."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in value.items()}
    try:
        print(json.dumps(finite, ensure_ascii=False, default=str, allow_nan=False), file=data(), flush=True)
    except BrokenPipeError:
        print_nowhere()


def print_nowhere() -> None:
    """Send the rest of the data to the null device."""
    streams = (data(), sys.__stdout__)
    for stream in filter(None, streams):
        with suppress(OSError, ValueError):  # in memory, as a test's
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """Print a table on stdout: drawn on a terminal, Markdown in a pipe."""
    cells = [["" if c is None else printable(str(c), keep="\n") for c in row] for row in rows]
    if fancy(data()):
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
        for column in columns:
            drawn.add_column(column, overflow="fold")
        for row in cells:
            drawn.add_row(*map(Text, row))
        Console(file=data()).print(drawn)
        return
    if title:
        emit(f"{title}\n")
    emit("| " + " | ".join(columns) + " |")
    emit("|" + "|".join("---" for _ in columns) + "|")
    for row in cells:
        emit("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in row) + " |")


@contextmanager
def only_first_process() -> Iterator[None]:
    """Silence all processes but the first of those that torchrun has started."""
    if not is_launched() or os.environ["RANK"] == "0":
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # noqa: PTH123
        yield


def error(message: str, hint: str | None) -> None:
    """Print `error: …` and `hint: …`, the only form of an error."""
    say(f"error: {message}")
    if hint:
        say(f"hint: {hint}")


def count(number: float | None) -> str:
    """Format a number of parameters for people: 135M, 1.7B."""
    if number is None:
        return "?"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.9995:  # what rounds to it
            return f"{number / size:.3g}{unit}"
    return str(int(number))
