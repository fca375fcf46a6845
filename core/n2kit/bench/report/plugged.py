"""Sections of a report that plug-ins write."""

from __future__ import annotations

from n2kit.bench.report.read import Results
from n2kit.contract.report_section import ReportSection
from n2kit.errors import N2kitError
from n2kit.plugins.registries import Entry, one, registered

REGISTRY = "report section"


def plugged_sections(results: Results) -> list[ReportSection]:
    """Collect the sections of plug-ins, in the order of their names; one that fails is left out, which its text says."""
    try:
        there = registered(REGISTRY)
    except N2kitError as problem:
        return [ReportSection("Sections of plug-ins", f"left out: {problem.message}")]
    rows = [row.model_dump(mode="json") for row in results.rows]
    found = []
    for name, entries in sorted(there.items()):
        try:
            section = _section(one(entries, f"{REGISTRY} {name!r}"), rows)
        except N2kitError as problem:
            section = ReportSection(name, f"left out: {problem.message}")
        if section is not None:
            found.append(section)
    return found


def _section(entry: Entry, rows: list[dict[str, object]]) -> ReportSection | None:
    """Call a plug-in's function; None where it has nothing to show.

    Raises:
        Unavailable: it fails, or gives no sound section.
    """
    write = entry.load()
    with entry.attribute_errors():
        made = write(rows)
        if made is None:
            return None
        if not isinstance(made, ReportSection):
            raise TypeError(f"gives {type(made).__name__}, no ReportSection")
        columns, cells = [str(c) for c in made.columns], [[str(cell) for cell in row] for row in made.rows]
    if wrong := next((row for row in cells if len(row) != len(columns)), None):
        raise entry.fault(f"a row has {len(wrong)} cells, and there are {len(columns)} columns")
    return ReportSection(str(made.title), str(made.text), columns, cells)
