"""Columns of a pairs file: which hold the two ids, a grade and hard negatives, and whether a first row is a header at all."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from n2kit.data.columns import SYNONYMS, normal
from n2kit.errors import BadInput, suggest, truncate_list

FIELDS = ("query", "target", "grade", "negatives")  # what --map may name
# A first row of such words, none of them an item's id, is a header.
_HEADER = re.compile(
    r"(query|target|left|right|source|anchor|positive|item|note|product|article|doc|sku|asin|id)s?([ _-]?id)?([ _-]?[ab12])?([ _-]?id)?",
    re.I,
)
_NAMES = (("query", "target"), ("left", "right"), ("anchor", "positive"), ("source", "target"), ("q", "t"))
_NUMBERED = re.compile(r"(.*?)_?(?:([ab12xy])(_id)?|(?<=[a-z]_)(from|to))")  # item_a, item_b; id1, id2; product_1_id
SEEN = (
    2  # known rows that make a header of an unknown one before them: behind one alone it may be a pair with wrong ids
)
_GRADES = ("grade", "score", "similarity", "label")  # names of the column that grades
_NEGATIVES = re.compile(r"(hard[ _-]?)?negatives?([ _-]?ids?)?([ _-]?\d+)?", re.I)  # there may be several such columns
# Whoever or whatever brings items together, and is none.
USER = re.compile(
    r"(user|customer|client|visitor|session|reviewer|member|account|buyer|shopper|profile|order|basket|cart|transaction|invoice|receipt)s?(_?(id|name|no|number|hash|key))*|uid"
)
ITEM = {"item", "movieid", "movie_id", "book_id", "parent_asin", "product", "article", *SYNONYMS["id"]}


class PairColumns(NamedTuple):
    """The columns of a file by what they hold: two ids, a grade, hard negatives, or nothing that is read here.

    `sure`: the ids' columns have names that say so, or were asked for.
    """

    ids: tuple[str, ...]
    grade: str | None
    negatives: tuple[str, ...]
    unread: tuple[str, ...]
    sure: bool

    @classmethod
    def of(
        cls, names: Iterable[str], asked: Mapping[str, str], holding: Sequence[str] = (), need: int = 2
    ) -> PairColumns:
        """Sort columns by their names; without two that are known, by what they are seen to hold; else the first two hold the ids.

        Args:
            asked: field → column, as `--map` has it. holding: columns in which known ids were seen. need: ids in a row.
        """
        names = list(names)
        negatives = tuple(
            n for n in names if n == asked.get("negatives") or ("negatives" not in asked and _NEGATIVES.fullmatch(n))
        )
        others = [n for n in names if n not in negatives]
        grade = asked.get("grade") or next((n for n in others if n.lower() in _GRADES), None)
        plain = [n for n in others if n != grade]
        if need == 1:
            named = [n for n in plain if normal(n) == "id" or normal(n) in SYNONYMS["id"]]
            ids = tuple([*holding, *named, *plain][:1])
            return cls(ids, grade, negatives, tuple(n for n in plain if n not in ids), True)
        ids, sure = _ids(plain, asked, [n for n in holding if n in plain and not USER.fullmatch(normal(n))])
        return cls(ids, grade, negatives, tuple(n for n in plain if n not in ids), sure)


def _ids(names: list[str], asked: Mapping[str, str], holding: list[str]) -> tuple[tuple[str, ...], bool]:
    """Choose the two columns of ids; also return whether their names say so."""
    if "query" in asked or "target" in asked:
        rest = [n for n in holding or names if n not in asked.values()]
        chosen = [asked.get(name) or (rest.pop(0) if rest else "") for name in ("query", "target")]
        return tuple(filter(None, chosen)), True
    lower = {n.lower(): n for n in reversed(names)}
    for pair in _NAMES:
        if set(pair) <= lower.keys():
            return tuple(lower[name] for name in pair), True
    stems: dict[str, list[str]] = {}
    for name in names:
        if (found := _NUMBERED.fullmatch(normal(name))) is not None:
            stems.setdefault(found[1] + (found[3] or ""), []).append(name)
    if (numbered := next((both for both in stems.values() if len(both) == 2), None)) is not None:
        return tuple(numbered), True
    return (tuple(holding[:2]), False) if len(holding) > 1 else (tuple(names[:2]), False)


def is_named(names: Iterable[str]) -> bool:
    """Tell whether two columns have one of the names for the two ids, which need no remark."""
    lower = {name.lower() for name in names}
    return any(set(pair) <= lower for pair in _NAMES)


def is_header(cells: Sequence[str], after: Sequence[Sequence[str]], known: Container[str], need: int) -> bool:
    """Tell whether a first row is a header: none of its cells is an item's id, and its words, or the rows after it, say so.

    need: ids in a row; 2 in a pair.
    """
    if len(cells) < need or any(cell in known for cell in cells) or not any(cells):
        return False
    if (
        is_named(cells)
        or sum(_HEADER.fullmatch(cell) is not None for cell in cells) >= min(2, len(cells))
        or _log_columns(cells) is not None
    ):
        return True
    if not all(cells[:need]):
        return False
    fit = sum(sum(cell in known for cell in row) >= need for row in after)
    return fit >= SEEN and 2 * fit >= len(after)


def holding_ids(names: Sequence[str], rows: Sequence[Sequence[str]], known: Container[str]) -> list[str]:
    """List the columns in which at least half of the rows have a known id."""
    shares = [sum(len(row) > n and row[n] in known for row in rows) for n in range(len(names))]
    return [name for name, share in zip(names, shares, strict=True) if share and 2 * share >= len(rows)]


def check_ids(columns: PairColumns, names: Sequence[str], where: str, asked: Mapping[str, str], *, sure: bool) -> None:
    """Refuse columns that are no pairs of items.

    Args:
        sure: the names have to say which columns hold the ids.

    Raises:
        BadInput: a column that was asked for is not there; a log of users and items; no two columns of ids.
    """
    have = f"it has {', '.join(filter(None, names))}"
    if missing := [column for column in asked.values() if column not in names]:
        near = suggest(missing[0], names)
        raise BadInput(f"{where}: no column {', '.join(missing)}", f"{have} ({near})" if near else have)
    if not columns.sure and (log := _log_columns(names)) is not None:
        raise log_of_users(where, *log)
    if sure and not columns.sure:
        raise BadInput(
            f"{where}: no two columns of ids",
            f"{have}; --map query=COLUMN --map target=COLUMN, or n2kit data mine, if it is a log of users and items",
        )


def _log_columns(names: Iterable[str]) -> tuple[str, str] | None:
    """Find the columns of a user and an item, of which a log is made; None where there are none."""
    user = next((n for n in names if USER.fullmatch(normal(n))), None)
    item = next((n for n in names if normal(n) in ITEM), None)
    return None if user is None or item is None else (user, item)


def log_of_users(where: str, user: str | None, item: str | None, unknown: Sequence[str] = ()) -> BadInput:
    """Make the error of a log of users and items that stands where pairs are wanted.

    unknown: ids beside an item's in the rows, by which it looks like a log where no names say so.
    """
    names = f" ({user}, {item or 'an item'})" if user else ""
    what = f"a log of users and items{names}"
    if unknown:
        what = f"looks like {what}: beside each item is an id of none ({truncate_list([*map(repr, unknown)])})"
    where_from = where.partition(":")[0]
    log = where_from if Path(where_from).is_file() else "FILE"
    hint = f"two items of one user make a pair: n2kit data mine --events {log} -o data makes pairs of a log"
    hint += "; --map user=COLUMN --map item=COLUMN names its columns" * (user is None)
    return BadInput(f"{where}: {what}; pairs are two item ids that belong together", hint)
