"""DuckDB as the embedded engine: its memory, its spill folder, its errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from n2kit.errors import Unavailable

SHARE = 0.5  # of the memory that is asked for, which DuckDB's buffers may take: Python, Arrow and its allocator take the rest
PER_THREAD = 200_000_000  # bytes that a thread works with
HINT = 'pip install "n2kit[data]"'


@contextmanager
def engine(memory: int, spill: Path) -> Iterator[Any]:
    """Give a connection to DuckDB that keeps to `memory` bytes, and spills into a folder beyond that.

    Raises:
        Unavailable: DuckDB is not installed, or the memory or the disk is too small.
    """
    try:
        import duckdb
    except ImportError:
        raise Unavailable("mining needs DuckDB, which is not installed", HINT) from None
    threads = max(1, min(os.cpu_count() or 1, memory // PER_THREAD))
    settings: dict[str, Any] = {
        "memory_limit": f"{int(memory * SHARE) // 1_000_000}MB",
        "threads": threads,
        "temp_directory": str(spill),
    }
    connection = duckdb.connect(config=settings | {"preserve_insertion_order": False})
    connection.execute("SET TimeZone = 'UTC'")
    try:
        yield connection
    except duckdb.OutOfMemoryException as error:
        what = str(error).partition("\n")[0]
        raise Unavailable(f"the memory is too small: {what}", "a larger --memory; the same command goes on") from None
    except duckdb.IOException as error:
        raise Unavailable(str(error).partition("\n")[0], "free some space; the same command goes on") from None
    finally:
        connection.close()


def quoted(text: object) -> str:
    """Write a text as SQL has it."""
    return "'" + str(text).replace("'", "''") + "'"


def column(name: str) -> str:
    """Write a column's name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def write_query(connection: Any, query: str, file: Path) -> None:
    """Write the rows of a query to a Parquet file, whole or not at all."""
    temporary = file.with_name(f".{file.name}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    connection.execute(f"COPY ({query}) TO {quoted(temporary)} (FORMAT parquet, COMPRESSION zstd)")
    temporary.replace(file)


def tables(*files: Path) -> str:
    """Write the table of Parquet files as SQL has it."""
    return f"read_parquet([{', '.join(map(quoted, files))}], hive_partitioning=false)"
