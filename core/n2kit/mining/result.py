"""The result of a mining, and the line that says it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from n2kit.errors import counted


@dataclass
class Mined:
    """The result of a mining. rows, pairs: counts of both, each with what was dropped by reason; notes: what the reader took."""

    pairs_file: Path
    rows: dict[str, Any]
    pairs: dict[str, Any]
    users: dict[str, int]
    items: int
    times: dict[str, int] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    done_before: bool = False

    def sentence(self) -> str:
        """Say in one line what came out, and of what."""
        lost = ", ".join(f"{count:,} {reason}" for reason, count in self.rows["dropped"].items())
        read = f"{counted(self.rows['read'], 'row')}: {self.rows['used']:,} used" + (
            f", dropped {lost}" if lost else ""
        )
        each = " of each part" if self.splits else ""
        people = f"{counted(self.users['users'], 'user')}{each} ({self.users['users of one item']:,} of one item"
        capped = self.users["users capped"]
        people += f", {capped:,} with more events than are used)" if capped else ")"
        parts = ", ".join(f"{split['pairs']:,} of {name}" for name, split in self.splits.items())
        written = counted(self.pairs["written"], "pair") + (f" ({parts})" if parts else "")
        return f"{read} · {people} · {counted(self.items, 'item')} · {written}"
