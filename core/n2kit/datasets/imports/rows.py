"""Rows of the files of public sets: tables with a header, JSON lines, Python literals, sequences of a user's items."""

from __future__ import annotations

import ast
import html
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from n2kit.data.columns import SYNONYMS, normal
from n2kit.data.delimited import delimited_rows
from n2kit.data.tables import check_names, json_rows, jsonl_rows, kind_of, parquet_rows
from n2kit.data.text_files import opened
from n2kit.errors import BadInput

Row = Mapping[str, Any]
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^<>]{1,500}>", re.I | re.S)
_TYPED = re.compile(r":(token|token_seq|float|float_seq)$")
_QUOTED = re.compile(r"^(['\"])(.*)\1$")
TOPICS = ("topics", "topic", "tags", "tag", "keywords", "genre", "genres", "categories", "class")
USERS, TIMES = ("user", "user_id", "userid", "userID"), ("timestamp", "time", "ts")
ITEMS = ("item", "item_id", "itemid", "itemID", "video_id", *SYNONYMS["id"], "id")


def table_rows(path: Path, unreadable: list[str], names: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield the rows of a table of any format by their columns' names.

    Types of a RecBole header are taken off, and what is a `token_seq` of topics becomes a list: tokens stand between spaces, or
    commas where there are some. Source: RUCAIBox/RecBole, docs/source/user_guide/data/atomic_files.rst.

    Args:
        names: of the columns of delimited text whose first row names none; what is beyond them belongs to the last, whose commas
            nobody quoted.

    Raises:
        BadInput: no such file, or one of a format that is not read.
    """
    if not path.is_file():
        raise BadInput(f"no file {path}", "check the path")
    kind = kind_of(path)
    if kind == "parquet":
        yield from (row for _, row in parquet_rows(path, lambda names: names))
    elif kind == "delimited":
        yield from _delimited(path, unreadable, names)
    else:
        yield from (row for _, row in (jsonl_rows if kind == "jsonl" else json_rows)(path, None, unreadable) if row)


def _delimited(path: Path, unreadable: list[str], names: tuple[str, ...]) -> Iterator[Row]:
    header: list[str] = []
    listed: set[str] = set()
    bare = False
    for line, cells in delimited_rows(path, None, lambda rows: len(rows[0]) > 1, unreadable, []):
        if not header:
            plain = [name.strip().lstrip("\ufeff") for name in cells]
            bare = bool(names) and not any(normal(name) in ITEMS for name in plain)
            header = list(names) if bare else [_TYPED.sub("", name) for name in plain]
            listed = {_TYPED.sub("", n) for n in plain if n.endswith(":token_seq")} & set(TOPICS)
            check_names(header, f"{path}:1")
            if not bare:
                continue
        if bare and len(cells) > len(header):
            cells = [*cells[: len(header) - 1], ",".join(cells[len(header) - 1 :])]
        if len(cells) > len(header):
            unreadable.append(f"{path}:{line}: {len(cells)} of {len(header)} fields")
        elif cells:
            row: dict[str, Any] = dict(zip(header, cells, strict=False))
            yield row | {name: _tokens(row[name]) for name in listed & row.keys()}


def _tokens(text: str) -> list[str]:
    """Divide a `token_seq`; tokens of some sets stand in quotes."""
    return [_QUOTED.sub(r"\2", token.strip()) for token in text.split("," if "," in text else None)]


def literal_rows(path: Path, unreadable: list[str]) -> Iterator[Row]:
    """Yield the rows of a file of Python dicts, one a line, as Amazon's of 2014, or of JSON lines. Nothing is run.

    JSON is tried first: Python reads many of its lines too, and its escapes otherwise.
    """
    if not path.is_file():
        raise BadInput(f"no file {path}", "check the path")
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if isinstance(row := _json(line) or _literal(line), dict):
                yield row
            else:
                unreadable.append(f"{path}:{number}: no Python dict")


def sequence_rows(path: Path, unreadable: list[str]) -> Iterator[Row]:
    """Yield user, item and place of each item of lines `user<TAB>item item item`, the earliest first.

    Sources: westlake-repl/NineRec, get_behaviour.py, which writes them; MicroLens' …_pairs.tsv.
    """
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            user, _, items = line.strip().partition("\t")
            if not user:
                continue
            if not items:
                unreadable.append(f"{path}:{number}: no tab between a user and his items")
            for place, item in enumerate(items.split()):
                yield {"user": user, "item": item, "timestamp": place}


def is_sequences(path: Path) -> bool:
    """Tell whether a file is of lines `user<TAB>item item item`."""
    with opened(path) as file:
        user, tab, items = file.readline().strip().partition("\t")
    return bool(tab) and " " in items.strip() and "\t" not in items and "," not in user


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _literal(line: str) -> Any:
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def listed_texts(value: Any) -> list[str]:
    """List the texts of a list, of lists in it, or of either written as a text: JSON, Python, or texts between `|` and `,`."""
    if isinstance(value, str):
        try:
            written = ast.literal_eval(value) if value.lstrip()[:1] == "[" else None
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            written = None
        value = written if isinstance(written, list) else value.replace("|", ",").split(",")
    if not isinstance(value, list | tuple):
        value = [] if value is None else [value]
    texts = [text for one in value for text in (listed_texts(one) if isinstance(one, list) else [clean(one)]) if text]
    return list(dict.fromkeys(texts))


def clean(value: Any) -> str:
    """Return a text of a web page as people read it: entities written out, tags and double spaces gone; a list is joined."""
    if isinstance(value, list | tuple):
        return " ".join(filter(None, map(clean, value)))
    if value is None or isinstance(value, dict) or value != value:
        return ""
    text = html.unescape(html.unescape(str(value)))  # "&amp;quot;" is there, too
    return " ".join(_TAG.sub(" ", text.replace("\0", " ")).split())


def first(row: Row, *names: str) -> Any:
    """Return the first of these columns that has something."""
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)
