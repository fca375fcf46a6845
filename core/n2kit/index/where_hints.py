"""Hints for conditions, in the columns and values that a user has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from n2kit.contract.store import ID, AllOf, AnyOf, Comparison, Condition, Negation

SOME = 1000  # values of a column that are looked at
WORDS = ("and", "or", "not", "in")
_MONEY = "[$€£¥₹₽₩₺₫฿₴₱]"
# 12,90 € · USD 1,299.00 · 1'299.-: which of its signs is the decimal point, a reader can only guess.
_AMOUNT = re.compile(rf"({_MONEY}|[A-Z]{{3}}\s)?\s*[-+]?\d[\d.,'\s]*({_MONEY}|(?<=\s)[A-Z]{{3}}|-)?")
Columns = Mapping[str, np.ndarray]


def example(columns: Columns) -> str:
    """Write a condition on columns that are there, with values that they have."""
    texts = {name: _texts(column) for name, column in columns.items() if name != ID and column.dtype.kind != "f"}
    numbers = {name: column[~np.isnan(column)] for name, column in columns.items() if column.dtype.kind == "f"}
    parts = []
    if few := min((name for name, some in texts.items() if some), key=lambda n: len(set(texts[n])), default=None):
        parts.append(Comparison(few, "=", texts[few][0]))
    if number := next((name for name, some in numbers.items() if len(some)), None):
        parts.append(Comparison(number, "<=", float(numbers[number][0])))
    if not parts and ID in columns and len(columns[ID]):
        parts.append(Comparison(ID, "=", columns[ID][0]))
    return f"for example: {' and '.join(map(written, parts))}" if parts else "n2kit index --items remembers columns"


def why_texts(name: str, column: np.ndarray) -> str:
    """Say why the values of a column are texts, though they are compared with a number."""
    values = _texts(column, len(column))
    if (odd := next((value for value in values if not _is_number(value)), None)) is None:
        some = f"{column_name(name)} = {_literal(values[0])}" if values else "texts in single quotes"
        return f"it holds texts that look like numbers, and they are compared as texts: {some}"
    if not re.search(r"\d", odd):
        return f"{odd!r} is no number; texts are in single quotes: {column_name(name)} = {_literal(odd)}"
    return f"{odd!r} is no plain number: write all as 12.90 in the file of items, and index it again"


def amounts(columns: Columns) -> Iterator[tuple[str, str]]:
    """Yield the columns of texts that are mostly amounts, such as prices with their currency, each with such a value."""
    for name, column in columns.items():
        values = [] if column.dtype.kind == "f" else _texts(column)
        found = [value for value in values if _AMOUNT.fullmatch(value) and not _is_number(value)]
        if found and 2 * len(found) >= len(values):
            yield name, found[0]


def written(condition: Condition) -> str:
    """Write a condition as a user types it."""
    if isinstance(condition, Comparison):
        return f"{column_name(condition.field)} {condition.sign} {_literal(condition.value)}"
    if isinstance(condition, Negation):
        return f"not ({written(condition.of)})"
    word = " and " if isinstance(condition, AllOf) else " or "
    return word.join(map(part_of, condition.of))


def part_of(condition: Condition) -> str:
    """Write a condition as a user types it in another: an `or` in an `and` is in parentheses."""
    return f"({written(condition)})" if isinstance(condition, AllOf | AnyOf) else written(condition)


def column_name(name: str) -> str:
    """Write a column's name, in double quotes where it is no word."""
    return name if re.fullmatch(r"[^\W\d][\w.]*", name) and name.lower() not in WORDS else f'"{name}"'


def _literal(value: str | float) -> str:
    return f"{value:.15g}" if isinstance(value, float) else "'" + value.replace("'", "''") + "'"


def _texts(column: np.ndarray, most: int = SOME) -> list[str]:
    return [str(value) for value in column[:most].tolist() if value]


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
