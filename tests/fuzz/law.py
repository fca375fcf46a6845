"""The law that every input is held to: an exit code that says whose fault it is, one clear message, and no file of the user's touched."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import io
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import typer
from hypothesis import settings

from n2kit.errors import BadInput, N2kitError, Unavailable
from n2kit_cli.main import run as run_program
from n2kit_cli.output import printable

CPU_SECONDS, WALL_SECONDS = 10, 120  # a hang works on, or waits; a busy machine is none
Result = TypeVar("Result")


class Hang(BaseException):
    """A case that was ended because it did not end."""


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """End a case that takes 10 seconds of work, or two minutes of waiting; one that hears no signal ends the process."""

    def stop(number: int, frame: Any) -> None:
        raise Hang(signal.Signals(number).name)

    before = [signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)
    faulthandler.dump_traceback_later(2 * WALL_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def cases(share: float) -> Callable[[Any], Any]:
    """Draw a share of the profile's cases, for a kind whose cases take longer than a few milliseconds."""
    return settings(max_examples=max(5, round(settings().max_examples * share)))


def read(reader: Callable[[], Result], *names: str) -> Result | N2kitError:
    """Call a reader: it gives what it read, or one clear error of the user's that names each of `names`."""
    with no_hang():
        try:
            return reader()
        except (BadInput, Unavailable) as problem:
            check_message(problem.message, problem.hint, names)
            return problem


def check_message(message: str, hint: str | None, names: tuple[str, ...]) -> None:
    """Check that an error says something, and where."""
    assert message.strip(), "an error without a word"
    assert hint is None or hint.strip()
    for name in names:
        assert name in message, f"{name} is not named: {message}"


def command(arguments: list[str], *, names: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> Done:
    """Run one command in this process and this folder, and hold it to the law.

    Args:
        names: of which an error of the input (exit code 2) names one at least.
        outputs: the first part of each path under this folder that it may write.
    """
    outputs = (*outputs, *(f"{name}.skipped.csv" for name in outputs))  # what was left out is listed beside
    before = snapshot(Path(), outputs)
    out, err = io.StringIO(), io.StringIO()
    with no_hang(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _one_program():
        try:
            code = run_program(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 99
    done = Done(code, out.getvalue(), err.getvalue())
    said = f"n2kit {arguments} → {done}"
    assert code in (0, 1, 2, 3), said
    assert "Traceback" not in done.err, said
    assert printable(done.err, keep="\n\t") == done.err, ascii(said)
    assert snapshot(Path(), outputs) == before, f"a file of the user's has changed: {said}"
    if code:
        assert "error: " in done.err or (code == 1 and done.out), said
    if code == 2 and names:
        assert any(name in done.err for name in names), said
    return done


def snapshot(folder: Path, without: tuple[str, ...] = ()) -> dict[str, tuple[int, int, int]]:
    """Return path → inode, size and time of every file under a folder, but for those that a command may write."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            if path.relative_to(folder).parts[0] not in without:
                facts = path.lstat()
                is_file = not path.is_dir()
                found[str(path)] = (facts.st_ino, facts.st_size * is_file, facts.st_mtime_ns * is_file)
    return found


@contextlib.contextmanager
def _one_program() -> Iterator[None]:
    """Build the program once: that takes longer than most of what it is asked."""
    original, typer.main.get_command = typer.main.get_command, _get_command
    try:
        yield
    finally:
        typer.main.get_command = original


@functools.cache
def _get_command(app: typer.Typer, _original: Any = typer.main.get_command) -> Any:
    return _original(app)
