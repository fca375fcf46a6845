"""Facts about a catalogue that was read, for people and for `--json`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

from n2kit.data.column_map import FILE
from n2kit.errors import counted


class ItemsRead(ABC):
    """Facts of a catalogue that was read.

    dropped: rows that could not be used. notes: what the reader took for granted. columns: fields that were read from a column of
    another name. unread: columns that were not read; propose: the `--map` that one of them may want. several: items that came with
    several images, of which they have the first. mapped: those of `columns` that `columns.yaml` names.
    """

    dropped: list[str]
    notes: list[str]
    columns: dict[str, str]
    unread: tuple[str, ...] = ()
    propose: str | None = None
    several: int = 0
    mapped: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Count the items that have each field but the id."""

    def facts(self) -> dict[str, Any]:
        """Say what was read, as under `--json`: items, counts by field, columns, unread columns, dropped rows, notes."""
        read = {"items": len(self), "with": self.counts(), "columns": self.columns, "not_read": list(self.unread)}
        return read | {"several_images": self.several, "dropped": len(self.dropped), "notes": self.notes}

    def summary(self, kept: Collection[str] = ()) -> str:
        """Say in one line how many items have what, which columns were taken for it, and which were not read.

        kept: the columns that are remembered, though they are no field.
        """
        count = self.counts()
        parts = [counted(len(self), "item")]
        had = f"{count['image']:,} with a picture, {count['title']:,} with a title, {count['topics']:,} with topics"
        parts.append(had + f", {count['content']:,} with content" * bool(count["content"]))
        if self.several:
            parts.append(f"the first picture of {counted(self.several, 'item')} with several")
        if self.columns:
            read = (
                f"{column} read as {name}" + f" ({FILE})" * (name in self.mapped)
                for name, column in self.columns.items()
            )
            parts.append(", ".join(read))
        others = {
            "kept as columns": [n for n in self.unread if n in kept],
            "not read": [n for n in self.unread if n not in kept],
        }
        listed = [f"{what}: {', '.join(names)}" for what, names in others.items() if names]
        if listed and self.propose:
            listed[-1] += f" ({self.propose})"
        return " · ".join([*parts, *listed])
