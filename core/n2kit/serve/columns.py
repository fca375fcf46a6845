"""A user's own columns of items that are put in, such as their price: checked against those that the index remembers."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from n2kit.data.columns import FIELDS, field_of, normal
from n2kit.index.facts import LONGEST, Facts, column_of
from n2kit.serve.problems import Problem

ALIKE = 0.8  # a new column that is so like a field's name is a field, misspelt: titel, catagory
Columns = Mapping[str, Any]  # of one item: column → value


def divided(row: Columns, known: Facts | None, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide what a client sent of an item into its fields and its columns; a field that the index has as a column is both.

    Raises:
        Problem: a key that is neither, and looks like a field; a value that is neither a text nor a number.
    """
    names = set() if known is None else known.columns.keys()
    fields = {key: value for key, value in row.items() if field_of(key) is not None}
    own = {key: value for key, value in row.items() if key not in fields or (key in names and field_of(key) != "image")}
    for key, value in own.items():
        if key in fields:
            continue
        if key not in names and (near := difflib.get_close_matches(normal(key), FIELDS[1:], 1, ALIKE)):
            raise Problem(400, f"{where}: unknown key {key!r}", f"did you mean {near[0]}?", where)
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise Problem(400, f"{where}: column {key!r} is neither a text nor a number", param=where)
        if len(str(value)) > LONGEST:
            raise Problem(
                400, f"{where}: column {key!r} has more than {LONGEST} characters", "content is for texts", where
            )
    return fields, own


def facts_of(rows: Mapping[str, Columns], categories: Sequence[str], known: Facts | None) -> Facts | None:
    """Make the columns of items, id → column → value, that are put in whole: what an item does not have, it has no longer.

    A column that is new holds texts as soon as one of its values is a text in the JSON, also one that looks like a number.

    Args:
        categories: of the items, which the index remembers as a column as soon as there is one. known: what the index remembers.

    Raises:
        Problem: a text for a column of numbers.
    """
    before = {} if known is None else known.columns
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys([*before, *(name for row in rows.values() for name in row)]):
        values = [row.get(name) for row in rows.values()]
        if name in before and before[name].dtype.kind == "f":
            found[name] = np.array([_number(name, i, v) for i, v in zip(rows, values, strict=True)], np.float64)
        elif name in before:
            found[name] = np.array([_text(value) for value in values], object)
        elif (column := column_of(values, text=any(isinstance(value, str) for value in values))) is not None:
            found[name] = column
    if "category" in before and before["category"].dtype.kind == "f":
        numbers = [_number("category", i, v) for i, v in zip(rows, categories, strict=True)]
        found["category"] = np.array(numbers, np.float64)
    elif "category" in before or any(categories):
        found["category"] = np.array(categories, object)
    return Facts(list(rows), found) if found else None


def _number(name: str, item_id: str, value: Any) -> float:
    """Read a number; NaN where there is none, or where a field such as the id, but no category, happens to be no number.

    Raises:
        Problem: it is something else.
    """
    if value is None or value == "":
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number) and field_of(name) in (None, "category"):
        raise Problem(
            400, f"item {item_id!r}: column {name!r} holds numbers, and {str(value)[:40]!r} is none", param=name
        )
    return number


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "|".join(map(str, value))
    return "" if value is None else str(value)
