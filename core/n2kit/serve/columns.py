"""A user's own columns of items that are put in, such as their price: checked against those that the index remembers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from n2kit.data.columns import FIELDS, normal
from n2kit.data.values import id_of
from n2kit.index.facts import LONGEST, Facts, column_of, is_empty
from n2kit.serve.problems import Problem

ALIKE = 0.8  # a new column that is so like a field's name is a field, misspelt: titel, catagory
CATEGORY = "category"
Columns = Mapping[str, Any]  # of one item: column → value


def divided(row: Columns, known: Facts | None, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide what a client sent of an item into its fields and its columns; a field that the index has as a column is both.

    A field goes to the column that the catalogue has it in, `Kategorie`, and that column's name is the field's, too.

    Raises:
        Problem: two keys for one field; a key that is none, and looks like one; a value that is neither a text nor a number.
    """
    known = known or Facts([], {})
    fields, keys, own = dict[str, Any](), dict[str, str](), dict[str, Any]()
    for key, value in row.items():
        if (name := known.field_of(key)) is None:
            _check(key, value, known, where)
            own[key] = value
            continue
        if name in fields:
            raise Problem(
                400, f"{where}: {keys[name]!r} and {key!r} are both its {name}", "leave one of them out", where
            )
        fields[name], keys[name] = value, key
        if name != "image" and (column := known.column_for(name) or key) in known.columns:
            own[column] = value
    return fields, own


def without_id(row: Columns, known: Facts | None, where: str) -> Problem:
    """Make the error of an item without an id, which may be called otherwise in the catalogue."""
    own = (known.fields if known else {}).get("id", "id")
    hint = f"it has: {', '.join(row) or 'nothing'}" + f"; the id of this index is {own!r}" * (own != "id")
    return Problem(400, f"{where} has no id", hint, where)


def _check(key: str, value: Any, known: Facts, where: str) -> None:
    """Check a column of a user's own.

    Raises:
        Problem: its name looks like a field's; its value is neither a text nor a number, or too long.
    """
    if key not in known.columns and (near := difflib.get_close_matches(normal(key), FIELDS[1:], 1, ALIKE)):
        raise Problem(400, f"{where}: unknown key {key!r}", f"did you mean {near[0]}?", where)
    if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise Problem(400, f"{where}: column {key!r} is neither a text nor a number", param=where)
    if len(str(value)) > LONGEST:
        raise Problem(400, f"{where}: column {key!r} has more than {LONGEST} characters", "content is for texts", where)


def facts_of(
    rows: Mapping[str, Columns], categories: Sequence[str], known: Facts | None, *, typed: bool = False
) -> Facts | None:
    """Make the columns of items, id → column → value, that are put in whole: what an item does not have, it has no longer.

    A column that is new, or whose items have gone, holds texts as soon as one of its values is a text in the JSON, also one
    that looks like a number.

    Args:
        categories: of the items, which the index remembers as a column as soon as there is one. known: what the index remembers.
        typed: it is in a store, where a column keeps its type when its items have gone.

    Raises:
        Problem: a text for a column of numbers; true or false for one of texts.
    """
    known = known or Facts([], {})
    category = known.column_for(CATEGORY) or CATEGORY
    lenient = {known.column_for(name) for name in FIELDS if name != CATEGORY}
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys([*known.columns, *(name for row in rows.values() for name in row), category]):
        values = list(categories) if name == category else [row.get(name) for row in rows.values()]
        if (column := known.columns.get(name)) is not None and (typed or not _free(values, column)):
            numeric = column.dtype.kind == "f"
            found[name] = _typed(name, dict(zip(rows, values, strict=True)), numeric, lenient=name in lenient)
        elif (made := column_of(values, text=any(isinstance(value, str) for value in values))) is not None:
            found[name] = made
    return Facts(list(rows), found, known.fields) if found else None


def _free(values: Sequence[Any], column: np.ndarray) -> bool:
    """Tell whether a column takes the type of new values: it is another one, and the items that had one of the column's have gone."""
    numeric = column.dtype.kind == "f"
    return any(isinstance(v, str) == numeric for v in values if v not in (None, "")) and is_empty(column)


def _typed(name: str, values: Mapping[str, Any], numeric: bool, *, lenient: bool) -> np.ndarray:
    """Make a column of the index's own type of new values: item → value [n].

    Args:
        lenient: a field such as the id is in it, which may happen to be no number, and is none then.
    """
    if numeric:
        return np.array([_number(name, item_id, value, lenient) for item_id, value in values.items()], np.float64)
    return np.array([_text(name, item_id, value) for item_id, value in values.items()], object)


def _number(name: str, item_id: str, value: Any, lenient: bool) -> float:
    """Read a number; NaN where there is none.

    Raises:
        Problem: it is something else.
    """
    if value is None or value == "":
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        if not lenient:
            raise Problem(
                400, f"item {item_id!r}: column {name!r} holds numbers, and {str(value)[:40]!r} is none", param=name
            )
        return math.nan
    return number


def _text(name: str, item_id: str, value: Any) -> str:
    """Write a value as a text: 7 and 7.0 are 7, as ids are; a long one of a field, which nobody compares, is none.

    Raises:
        Problem: true or false, which no file has as a text.
    """
    if isinstance(value, bool):
        said = str(value).lower()
        raise Problem(400, f"item {item_id!r}: column {name!r} holds texts, and {said} is none", f'"{said}"', name)
    if isinstance(value, list | tuple):
        value = "|".join(map(str, value))
    text = "" if value is None else value if isinstance(value, str) else id_of(value)
    return text if len(text) <= LONGEST else ""
