"""Rows of `step,name,value` in RUN/log.csv."""

import csv
from collections.abc import Mapping
from pathlib import Path


class CsvLog:
    def __init__(self, folder: Path) -> None:
        self.file = (folder / "log.csv").open("a", newline="", encoding="utf8")
        self.rows = csv.writer(self.file)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.writerows((step, name, value) for name, value in sorted(values.items()))
        self.file.flush()

    def end(self) -> None:
        self.file.close()
