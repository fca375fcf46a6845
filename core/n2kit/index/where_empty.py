"""The reason why a condition leaves no item."""

from __future__ import annotations

from collections.abc import Mapping

from n2kit.contract.store import AllOf, Comparison, Condition
from n2kit.errors import counted, suggest
from n2kit.index.where import Columns, holds, is_numeric, parse
from n2kit.index.where_hints import part_of, written


def why_empty(condition: str, columns: Columns, fields: Mapping[str, str] | None = None) -> str | None:
    """Say which part of a condition leaves nothing of columns [n]; None where something is left. fields: as of `parse`.

    Raises:
        BadInput: it is none.
    """
    asked = parse(condition, columns, fields)
    if holds(asked, columns).any():
        return None
    parts = asked.of if isinstance(asked, AllOf) else (asked,)
    counts = [int(holds(part, columns).sum()) for part in parts]
    if 0 in counts:
        part = parts[counts.index(0)]
        return f"no item has {written(part)}{_near(part, columns)}"
    each = " and ".join(f"{part_of(part)} ({counted(n, 'item')})" for part, n in zip(parts, counts, strict=True))
    return f"no item has both: {each}" if len(parts) == 2 else f"no item has all of: {each}"


def _near(part: Condition, columns: Columns) -> str:
    """Write which of a column's texts may be meant."""
    if not isinstance(part, Comparison) or part.sign != "=" or is_numeric(columns[part.field]):
        return ""
    near = suggest(str(part.value), dict.fromkeys(filter(None, columns[part.field].tolist())))
    return f" ({near})" if near else ""
