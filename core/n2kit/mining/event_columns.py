"""Columns of a log: which is the user, the item, the time, the type and the weight of an event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from n2kit.data.columns import normal
from n2kit.data.pair_columns import ITEM, USER
from n2kit.errors import BadInput, suggest

FIELDS = ("user", "item", "time", "type", "weight")
_TIME = re.compile(
    r"(unix_?|event_?|server_?|local_?|click_?|view_?|order_?|purchase_?|transaction_?|sort_?|review_?|unix_?review_?)?"
    r"(time_?stamp|date_?time|time|date|ts)(_?(utc|ms|us|ns|s|millis|seconds))?|created(_at)?|t_dat"
)
_TYPE = {"type", "event", "event_type", "event_name", "action", "behavior", "behaviour", "behavior_type", "action_type"}
_WEIGHT = {"weight"}
_RECBOLE = re.compile(r":(token|token_seq|float|float_seq)$")  # of typed headers


class EventColumns(NamedTuple):
    """The columns of a log by field; time, type and weight may be missing."""

    user: str
    item: str
    time: str | None
    type: str | None
    weight: str | None
    unread: tuple[str, ...]


def events_map(renames: Iterable[str], fields: Sequence[str] = FIELDS) -> dict[str, str]:
    """Parse `--map user=visitor` into field → column, of these fields.

    Raises:
        BadInput: an entry that is not field=column, or no such field.
    """
    found = {}
    for rename in renames:
        name, equals, value = rename.partition("=")
        if not equals or not value:
            raise BadInput(f"--map {rename!r}: expected field=column", "for example --map user=visitor")
        if name not in fields:
            raise BadInput(f"--map {rename}: no such field", suggest(name, fields) or f"fields: {', '.join(fields)}")
        found[name] = value
    return found


def find_columns(names: Iterable[str], asked: Mapping[str, str], where: str) -> EventColumns:
    """Find the columns of a log by their names, or as `asked`, field → column.

    Raises:
        BadInput: no user or no item, a column that is asked for and not there, or two that may be one field.
    """
    names = [name for name in names if name]
    if missing := [name for name in asked.values() if name not in names]:
        hint = suggest(missing[0], names) or f"it has {', '.join(names) or 'none'}"
        raise BadInput(f"{where}: no column {missing[0]}", hint)
    free = [name for name in names if name not in asked.values()]
    found = {field: asked.get(field) or _named(field, free, where) for field in FIELDS}
    for field in ("user", "item"):
        if found[field] is None:
            hint = f"it has {', '.join(names) or 'none'}; --map {field}=COLUMN names it"
            raise BadInput(f"{where}: no column of the {field}; a first row has to name the columns", hint)
    if twice := next((name for name in found.values() if name is not None and names.count(name) > 1), None):
        raise BadInput(f"{where}: two columns are called {twice!r}", "rename one of them")
    read = set(found.values())
    unread = tuple(name for name in names if name not in read)
    return EventColumns(str(found["user"]), str(found["item"]), found["time"], found["type"], found["weight"], unread)


def item_alone(names: Iterable[str], asked: Mapping[str, str], where: str) -> dict[str, str]:
    """Ask for the columns of a log of which items and times are read, and nobody's user: the item stands for it.

    Raises:
        BadInput: no item.
    """
    names = [name for name in names if name]
    item = asked.get("item") or _named("item", [name for name in names if name not in asked.values()], where)
    if item is None:
        hint = f"it has {', '.join(names) or 'none'}; --map item=COLUMN names it"
        raise BadInput(f"{where}: no column of the item; a first row has to name the columns", hint)
    return {**asked, "user": item, "item": item}


def _named(field: str, names: list[str], where: str) -> str | None:
    """Find the column of a field: of its very name, else the only one that may be it."""
    plain = {name: normal(_RECBOLE.sub("", name)) for name in names}
    if exact := [name for name, word in plain.items() if word == field]:
        return exact[0]
    if field == "time" and (exact := [name for name, word in plain.items() if word == "timestamp"]):
        return exact[0]
    may = [name for name, word in plain.items() if _may_be(field, word)]
    if len(may) > 1:
        raise BadInput(f"{where}: {field} may be {' or '.join(may)}: which?", f"--map {field}={may[0]}")
    return may[0] if may else None


def _may_be(field: str, word: str) -> bool:
    if field == "user":
        return USER.fullmatch(word) is not None
    if field == "time":
        return _TIME.fullmatch(word) is not None
    return word in {"item": ITEM, "type": _TYPE, "weight": _WEIGHT}[field]
