"""A guess at the format of times that are texts, for a hint."""

from __future__ import annotations

import re


def likely_format(time: str) -> str:
    """Guess the format of strptime of a time with a year of four digits: `01.02.2024 10:00` → `%d.%m.%Y %H:%M`."""
    shape = re.sub(r"\d{4}", "%Y", time.strip(), count=1)
    rest = iter(["%m", "%d", "%H", "%M", "%S"] if shape.startswith("%Y") else ["%d", "%m", "%H", "%M", "%S"])
    return re.sub(r"\d+", lambda number: next(rest, number.group()), shape)
