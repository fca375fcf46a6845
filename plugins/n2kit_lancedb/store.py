"""A table of LanceDB."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from n2kit.contract import Condition, Store
from n2kit.errors import BadInput, Unavailable
from n2kit_lancedb.conditions import literal, sql
from n2kit_lancedb.config import LanceOptions

os.environ.setdefault("LANCEDB_LOG", "error")  # or it warns of its own future on stderr
QUERIES = 64  # that are searched together
LEAST = 256  # vectors that lists can be made of
IDS = 2000  # in one condition
LONGEST = 300  # characters of a reason


class LanceStore(Store):
    """A table with one row an item.

    There is no scalar index on its ids: with one, a merge may update nothing and say nothing (lancedb #3177, #3515).
    """

    def __init__(self, table: Any, config: LanceOptions) -> None:
        self.table, self.config = table, config

    @classmethod
    def create(
        cls, folder: Path, width: int, fields: Mapping[str, type], config: LanceOptions, *, replace: bool
    ) -> Self:
        database = _connected(folder, config)
        if not replace and config.table in _names(database):
            raise BadInput(
                f"there is a table {config.table} at {config.url}", "--force replaces it, or another index.table"
            )
        types = {name: pa.string() if kind is str else pa.float64() for name, kind in fields.items()}
        schema = pa.schema({"id": pa.string(), "vector": pa.list_(pa.float32(), width), **types})
        return cls(database.create_table(config.table, schema=schema, mode="overwrite"), config)

    @classmethod
    def open(cls, folder: Path, config: LanceOptions) -> Self:
        database = _connected(folder, config)
        if config.table not in _names(database):
            raise BadInput(f"there is no table {config.table} at {config.url or folder}", "index again")
        return cls(database.open_table(config.table), config)

    def __len__(self) -> int:
        return int(self.table.count_rows())

    def add_fields(self, fields: Mapping[str, type]) -> None:
        there = set(self.table.schema.names)
        new = {
            name: "''" if kind is str else "CAST(NULL AS DOUBLE)" for name, kind in fields.items() if name not in there
        }
        if new:
            self.table.add_columns(new)

    def insert(self, ids: Sequence[str], vectors: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
        self.table.add(_rows(ids, vectors, fields, self.table.schema))

    def upsert(self, ids: Sequence[str], vectors: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
        self._without_index_of_ids()
        rows = _rows(ids, vectors, fields, self.table.schema)
        done = self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
        written = done.num_updated_rows + done.num_inserted_rows
        if written != len(ids):
            raise Unavailable(f"LanceDB wrote {written} of {len(ids)} rows", "index all anew, and try another lancedb")

    def _without_index_of_ids(self) -> None:
        for index in self.table.list_indices():
            if list(index.columns) == ["id"]:
                raise BadInput(
                    f"the table has a scalar index {index.name} on its ids, with which LanceDB may lose updates",
                    f"drop it: table.drop_index({index.name!r})",
                )

    def delete(self, ids: Sequence[str]) -> None:
        for some in _some(ids):
            self.table.delete(_among(some))

    def scan(self, fields: Mapping[str, type], *, vectors: bool = False) -> Iterator[dict[str, np.ndarray]]:
        names = ["id", *fields, *(["vector"] if vectors else [])]
        for batch in self.table.search().select(names).to_batches(batch_size=8192):
            if len(batch):
                yield {name: _numpy(batch.column(name)) for name in names}

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        found: dict[str, np.ndarray] = {}
        for some in _some(ids):
            table = self.table.search().where(_among(some)).select(["id", "vector"]).limit(len(some)).to_arrow()
            found.update(zip(table.column("id").to_pylist(), _numpy(table.column("vector")), strict=True))
        return np.stack([found[item_id] for item_id in ids])

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None
    ) -> list[tuple[list[str], np.ndarray]]:
        found: list[tuple[list[str], np.ndarray]] = []
        probes, refine = self.config.probes, self.config.refine
        for start in range(0, len(queries), QUERIES):
            some = list(queries[start : start + QUERIES])
            asked = self.table.search(some if len(some) > 1 else some[0], query_type="vector").distance_type("dot")
            if self.config.search != "exact":
                asked = asked.nprobes(probes).refine_factor(refine)
            if condition is not None:
                asked = asked.where(sql(condition), prefilter=True)
            rows = asked.limit(k).select(["id", "_distance"]).to_arrow()
            owner = rows.column("query_index").to_numpy() if len(some) > 1 else np.zeros(len(rows), np.int64)
            ids, scores = np.array(rows.column("id").to_pylist(), object), 1 - rows.column("_distance").to_numpy()
            for query in range(len(some)):
                own = np.flatnonzero(owner == query)
                own = own[np.argsort(-scores[own], kind="stable")]
                found.append((ids[own].tolist(), scores[own].astype(np.float32)))
        return found

    def index_words(self, field: str) -> None:
        from lancedb.index import FTS

        tokens = {"ngram_min_length": 2, "ngram_max_length": 3} if self.config.tokenizer == "ngram" else {}
        plain = FTS(base_tokenizer=self.config.tokenizer, stem=False, remove_stop_words=False, **tokens)
        self.table.create_index(field, config=plain, replace=True)

    def match(self, words: str, k: int, field: str, condition: Condition | None = None) -> list[tuple[str, float]]:
        asked = self.table.search(words, query_type="fts", fts_columns=field)
        if condition is not None:
            asked = asked.where(sql(condition), prefilter=True)
        rows = asked.limit(k).select(["id", "_score"]).to_arrow()
        return list(zip(rows.column("id").to_pylist(), rows.column("_score").to_pylist(), strict=True))

    def compact(self) -> None:
        """Join small pieces, and make or complete the lists of near vectors."""
        if self.config.search != "exact" and len(self) >= LEAST:
            if any(list(index.columns) == ["vector"] for index in self.table.list_indices()):
                self.table.optimize()
                return
            self.table.create_index("vector", config=_lists(self.config.search))
        self.table.optimize()

    def close(self) -> None:
        """Nothing is held open."""


def _connected(folder: Path, config: LanceOptions) -> Any:
    import lancedb

    try:
        return lancedb.connect(config.url or str(folder))
    except Exception as error:
        raise Unavailable(
            f"{config.url or folder} cannot be reached: {error}".splitlines()[0][:LONGEST], "check index.url"
        ) from None


def _names(database: Any) -> set[str]:
    found: set[str] = set()
    token = None
    while True:
        page = database.list_tables(page_token=token)
        found |= set(page.tables)
        if not (token := page.page_token):  # of an object store it is a name of the store's own, and no table's
            return found


def _lists(search: str) -> Any:
    from lancedb.index import HnswSq, IvfFlat, IvfPq

    return {"ivf_flat": IvfFlat, "ivf_hnsw_sq": HnswSq, "ivf_pq": IvfPq}[search](distance_type="dot")


def _rows(ids: Sequence[str], vectors: np.ndarray, fields: Mapping[str, np.ndarray], schema: pa.Schema) -> pa.Table:
    """Make a table of rows in the order of the schema's columns; a number that is not there is null."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    columns = {"id": pa.array(ids, pa.string()), "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])}
    for name in schema.names:
        if name not in columns:
            columns[name] = (
                pa.array(fields[name], schema.field(name).type, from_pandas=True)
                if name in fields
                else pa.nulls(len(ids), schema.field(name).type)
            )
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _numpy(column: Any) -> np.ndarray:
    """Read a column: vectors [n, d], numbers with NaN for null, or texts with "" for null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_fixed_size_list(column.type):
        flat: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), column.type.list_size)
    if pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    return np.array(["" if value is None else value for value in column.to_pylist()], object)


def _some(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), IDS):
        yield ids[start : start + IDS]


def _among(ids: Sequence[str]) -> str:
    return f"id IN ({', '.join(map(literal, ids))})"
