"""Expected errors, each with the exit code and the two lines that a user sees."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence

SHOWN = 3  # of many reasons
MANY = 2_000  # names to compare with a misspelt one


def truncate_list(reasons: Sequence[str], total: int | None = None) -> str:
    """The first SHOWN reasons, and `…` where there are more; `total`: of how many, if `reasons` are not all."""
    more = (len(reasons) if total is None else total) > SHOWN
    return "; ".join([*reasons[:SHOWN], *["…"] * more])


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Write a number with its noun: `1 item`, `1,024 items`, `2 queries`."""
    other = plural or (f"{noun[:-1]}ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else f"{noun}s")
    return f"{number:,} {noun if number == 1 else other}"


class N2kitError(Exception):
    """An expected failure: `message` says what and where, `hint` what to do about it."""

    exit_code = 4

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Failed(N2kitError):
    """A run that worked, but in which something failed (a check, a cell of a matrix)."""

    exit_code = 1


class BadInput(N2kitError):
    """An input of the user that cannot be used as it is."""

    exit_code = 2


@contextlib.contextmanager
def naming(file: object) -> Iterator[None]:
    """Add the file's name to an error of the user's that does not name it: what looked at the contents does not know it."""
    try:
        yield
    except BadInput as problem:
        if str(file) not in problem.message:
            problem.message = f"{file}: {problem.message}"
            problem.args = (problem.message,)
        raise


class Mismatch(BadInput):
    """A pair of parts that cannot be joined: both sides and the numbers are in the message."""


class Unavailable(N2kitError):
    """A need that the environment lacks: an extra, a GPU, reachable weights, a working plug-in."""

    exit_code = 3


def suggest(name: str, known: Iterable[str]) -> str | None:
    """Write `did you mean …?` for a hint out of the nearest of the known names, or return None.

    Those come first that differ by spaces around, letters' case and leading zeros alone: 1 for 00001. Among many, such as the ids of a
    catalogue, those are compared that begin or end alike: comparing all takes seconds.
    """
    names = list(known)
    if same := alike(name, names):
        return f"did you mean {' or '.join(same[:SHOWN])}?"
    name = name.lower()
    if len(names) > MANY:
        names = [n for n in names if n[:2].lower() == name[:2] or n[-2:].lower() == name[-2:]][:MANY]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else None


def alike(name: str, known: Iterable[str]) -> list[str]:
    """List the known names that differ by spaces around, letters' case and leading zeros alone."""
    bare = _bare(name)
    return [n for n in known if _bare(n) == bare]


def _bare(name: str) -> str:
    """Write a name without what spreadsheets change."""
    return name.strip().casefold().lstrip("0")
