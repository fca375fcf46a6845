"""Columns of an items file: which of them is which field, by its name, a synonym of it, or as `--map` says."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from n2kit.data.image_source import is_image_name
from n2kit.errors import BadInput, suggest

FIELDS = ("id", "image", "title", "topics", "content", "category")
SYNONYMS = {
    "id": ("item_id", "itemid", "product_id", "productid", "sku", "asin", "note_id", "article_id"),
    "image": (
        "image_url", "image_path", "image_file", "image_link", "image_src", "image_name", "img", "img_url", "img_path", "picture",
        "picture_url", "photo", "photo_url", "file_name", "filename", "images", "image_urls", "pictures", "photos",
    ),
    "title": ("name", "product_name", "product_title", "item_name", "headline"),
    "topics": ("tags", "hashtags", "keywords"),
    "content": ("description", "body", "text", "product_description", "desc"),
    "category": ("categories", "product_category", "product_type"),
}  # fmt: skip
_FIELD_OF = {synonym: name for name, synonyms in SYNONYMS.items() for synonym in synonyms}
# Words that say which field a name is about; those that stand in names of any field say nothing.
_WORDS = {
    name: {name, *re.findall("[a-z]+", " ".join(SYNONYMS[name]))} - {"product", "item", "name", "path", "url", "file"}
    for name in FIELDS
}
_INDEX = re.compile(r"(Unnamed: \d+|__index_level_\d+__)?")  # of pandas, and nobody's column


def normal(name: str) -> str:
    """Write a column's name as synonyms are compared: `Product ID` and `productId` are `product_id`."""
    return re.sub(r"[\s.\-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())).casefold()


@dataclass
class Columns:
    """The columns that fields are read from, learnt from the names that a file has.

    asked: field → column, as `--map` has it. names: all that were seen. sources: field → column.
    """

    asked: Mapping[str, str]
    where: str
    names: dict[str, None] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    def learn(self, names: Iterable[str]) -> bool:
        """Add names; return whether a field that was read from one column is now read from another.

        Raises:
            BadInput: two columns may be the same field, and none has its very name.
        """
        self.names.update(dict.fromkeys(names))
        before, self.sources = self.sources, {}
        taken = set(self.asked.values())
        free = [name for name in self.names if name not in taken]
        for name in FIELDS:
            if (column := self.asked.get(name) or self._named(name, free)) is not None:
                self.sources[name] = column
        return any(self.sources[name] != column for name, column in before.items())

    def _named(self, name: str, free: list[str]) -> str | None:
        """Find the column of a field: of its name, of its name in other letters, or of a synonym."""
        if name in self.names:
            return name
        alike = [n for n in free if normal(n) == name]
        for found in (alike, [n for n in free if _FIELD_OF.get(normal(n)) == name]):
            if len(found) > 1:
                either = f"--map {name}={found[0]}, or --map {name}={found[1]}"
                raise BadInput(f"{self.where}: {name} may be {' or '.join(found)}: which?", either)
            if found:
                return found[0]
        return None

    def check(self) -> None:
        """Check that there is an id, and every column that was asked for.

        Raises:
            BadInput: with those that are missing.
        """
        wanted = {self.asked.get("id") or self.sources.get("id", "id"), *self.asked.values()}
        if missing := sorted(wanted - set(self.names)):
            have = f"it has {', '.join(filter(None, self.names)) or 'none'}"
            asked = [name for name in missing if name in self.asked.values()]
            near = next(filter(None, (suggest(name, filter(None, self.names)) for name in asked)), None)
            meant = f" ({near})" if near else ""
            named = "" if asked else f"; --map id={next(filter(None, self.names), 'COLUMN')} if that is it"
            header = named if self.names else "; a first row has to name the columns"
            raise BadInput(f"{self.where}: no column {', '.join(missing)}", f"{have}{meant}{header}")

    @property
    def renamed(self) -> dict[str, str]:
        """The fields whose column has another name that nobody asked for: field → column."""
        return {name: column for name, column in self.sources.items() if column != name and name not in self.asked}

    @property
    def unread(self) -> tuple[str, ...]:
        """The columns that mean nothing here, without an index of pandas."""
        read = set(self.sources.values())
        return tuple(name for name in self.names if name not in read and not _INDEX.fullmatch(name))


def proposal(sources: Mapping[str, str], unread: Iterable[str], first: Mapping[str, Any]) -> str | None:
    """Propose a `--map` for a column that is not read, and looks in the `first` row or sounds like a field that has no column."""
    for column in () if "image" in sources else unread:
        if isinstance(value := first.get(column), str) and is_image_name(value):
            return f"--map image={column}"
    for name in FIELDS[1:]:
        for column in () if name in sources else unread:
            words = set(normal(column).split("_"))
            if words & _WORDS[name] or difflib.get_close_matches(normal(column), [name, *SYNONYMS[name]], 1, 0.8):
                return f"--map {name}={column}"
    return None


def field_of(key: str) -> str | None:
    """Find the field that a key names, by its own name or a synonym, in letters of any case; None where it is a user's own."""
    if key in FIELDS:
        return key
    return next((name for name in (normal(key), _FIELD_OF.get(normal(key))) if name in FIELDS), None)


def fields_of(row: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Name the fields of a mapping that a program gives; none of its keys is passed over.

    Raises:
        BadInput: an unknown key, with the nearest that is known; two keys for one field.
    """
    try:
        return {name: row[key] for name, key in _sources(tuple(row))}
    except BadInput as problem:
        raise BadInput(f"{what}: {problem.message}", problem.hint) from None


@lru_cache(maxsize=256)
def _sources(keys: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Find the fields of a mapping's keys: (field, key)."""
    if odd := [key for key in keys if not isinstance(key, str)]:
        raise BadInput(f"key {odd[0]!r} is no text", f"known: {', '.join(FIELDS)}")
    found: dict[str, str] = {}
    for key in keys:
        if (name := field_of(key)) is None:
            near = suggest(key, FIELDS) or suggest(key, _FIELD_OF)
            raise BadInput(f"unknown key {key!r}", f"{near} " * bool(near) + f"known: {', '.join(FIELDS)}")
        if name in found:
            raise BadInput(f"{found[name]!r} and {key!r} are both its {name}", "leave one of them out")
        found[name] = key
    return tuple(found.items())
