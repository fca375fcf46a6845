"""A section of a bench report that a plug-in writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ReportSection:
    """A section of `report.html` and `results.md`: a sentence or two, a table, or both. All of it is text, and no HTML."""

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
