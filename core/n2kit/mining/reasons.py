"""Why a log gives no events, no pairs, or nothing for a part: what is said, and what may be done."""

from __future__ import annotations

from collections.abc import Mapping

from n2kit.data.items import Items
from n2kit.data.pairs import likely_ids
from n2kit.errors import BadInput, Failed
from n2kit.mining.ingest import NO_TIME, UNLISTED
from n2kit.mining.result import Mined
from n2kit.mining.time_formats import likely_format


def no_event(
    where: str, dropped: Mapping[str, int], examples: Mapping[str, str], unreadable: list[str], items: Items | None
) -> BadInput:
    """Make the error of logs of which no event can be used, with an example of the reason."""
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in dropped.items()) or "it has no rows"
    hint, example = "is this the right file?", next(iter(unreadable), "")
    if (time := examples.get(NO_TIME)) is not None:
        hint, example = f"--time-format '{likely_format(time)}', if that is how they are written", repr(time)
    elif (strange := examples.get(UNLISTED)) is not None:
        likely = likely_ids([strange], items or ())
        hint, example = f"{likely}is this the log of these items?", repr(strange)
    return BadInput(
        f"{where}: no event that can be used: {reasons}" + f" (for example {example})" * bool(example), hint
    )


def example_notes(examples: Mapping[str, str], items: Items | None) -> list[str]:
    """Say of dropped rows how they may be read after all."""
    notes = []
    if (time := examples.get(NO_TIME)) is not None:
        notes.append(f"a time that is not understood: {time!r}; --time-format FORMAT reads others")
    if (strange := examples.get(UNLISTED)) is not None and (likely := likely_ids([strange], items or ())):
        notes.append(f"{UNLISTED}: {likely.removesuffix('; ')}")
    return notes


def why_no_pair(mined: Mined) -> str:
    """Say why nothing was mined of events that were used, and what may bring pairs."""
    users, lost = mined.users, {reason: n for reason, n in mined.pairs["dropped"].items() if n}
    if users["users of one item"] == users["users"]:
        column = mined.columns.get("user", "user")
        return f"each user has one item, and two items of one user make a pair: a longer log, or --map user=COLUMN, if {column} is none"
    if lost:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in lost.items())
        return f"all pairs were dropped ({reasons}): looser bounds, such as --lower and --min-users"
    return (
        "a longer log, or looser bounds, such as --window and --gap; with --symmetric either order of two items counts"
    )


def check_splits(mined: Mined, where: object) -> None:
    """Check that each part of a split by time has pairs.

    Raises:
        Failed: one has none; nothing was written.
    """
    if not (empty := [name for name, part in mined.splits.items() if not part["pairs"]]):
        return
    if "train" in empty:
        hint = "smaller shares (--val, --test), or a longer log" if mined.pairs["written"] else why_no_pair(mined)
        raise Failed(f"{where}: split by time: no pair was mined for train: {mined.sentence()}", hint)
    what = f"no pair is in {' or '.join(empty)} that is not in an earlier part"
    hint = "larger shares (--val, --test), a longer log, or --split component"
    raise Failed(f"{where}: split by time: {what}: {mined.sentence()}", hint)
