"""Rows of the table `items`, in the order in which they were written."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield each row by its columns' names.

    Raises:
        ValueError: no SQLite file, or one without such a table.
    """
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        yield from map(dict, connection.execute("SELECT * FROM items ORDER BY rowid"))
    except sqlite3.DatabaseError as error:
        raise ValueError(f"no SQLite file with a table `items`: {error}") from error
    finally:
        connection.close()
