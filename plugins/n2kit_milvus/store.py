"""A collection of Milvus."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from n2kit.contract import Condition, Store
from n2kit.errors import BadInput, Unavailable
from n2kit_milvus.conditions import after, among, expression
from n2kit_milvus.config import MilvusOptions

FILE = "milvus.db"
TOKEN = "MILVUS_TOKEN"
LONGEST_ID = 65_535  # bytes
LONGEST_ROW = 65_536  # bytes of dynamic fields
ROWS, QUERIES, IDS = 1000, 256, 1000  # in one request
IN_ORDER = {"iterator": "True", "reduce_stop_for_best": "True"}  # of ids, as Milvus's own iterator asks
LOGS = ("grpc._server", "pymilvus", "milvus_lite")  # which print each failure with its stack, and raise it too


os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # or milvus-lite's idle connections are talked about on stderr
_LOCK, _OPEN = threading.Lock(), Counter[str]()  # how many stores of this process are in a file of milvus-lite


class MilvusStore(Store):
    """A collection with one row an item: its id, its vector, and the rest as dynamic fields."""

    MOST: ClassVar[int] = 16_384

    def __init__(self, client: Any, config: MilvusOptions, path: Path | None) -> None:
        self.client, self.config, self.path, self.closed = client, config, path, False
        if path is not None:
            with _LOCK:
                _OPEN[str(path)] += 1

    @classmethod
    def create(
        cls, folder: Path, width: int, fields: Mapping[str, type], config: MilvusOptions, *, replace: bool
    ) -> Self:
        from pymilvus import DataType

        made = cls._connected(folder, config)
        client, name = made.client, config.collection
        if client.has_collection(name):
            if not replace:
                made.close()
                raise BadInput(
                    f"there is a collection {name} at {config.url}", "--force replaces it, or another index.collection"
                )
            client.drop_collection(name)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=LONGEST_ID)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
        lists = client.prepare_index_params()
        kind, built = {
            "exact": ("FLAT", {}), "ivf_flat": ("IVF_FLAT", {"nlist": 1024}), "hnsw": ("HNSW", {"M": 32, "efConstruction": 200}),
        }[config.search]  # fmt: skip
        lists.add_index("vector", index_type=kind, metric_type="IP", params=built)
        client.create_collection(name, schema=schema, index_params=lists, consistency_level="Strong")
        return made

    @classmethod
    def open(cls, folder: Path, config: MilvusOptions) -> Self:
        if not config.url and not (folder / FILE).exists():
            raise BadInput(f"there is no {FILE} in {folder}", "index again")
        made = cls._connected(folder, config)
        if not made.client.has_collection(config.collection):
            made.close()
            raise BadInput(f"there is no collection {config.collection} at {config.url or folder}", "index again")
        made.client.load_collection(config.collection)
        return made

    @classmethod
    def _connected(cls, folder: Path, config: MilvusOptions) -> Self:
        for name in LOGS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        from pymilvus import MilvusClient, MilvusException

        path = None if config.url else folder / FILE
        place = config.url or str(path)
        try:
            client = MilvusClient(place, **({"token": os.environ.get(TOKEN, ""), "timeout": 30} if config.url else {}))
        except MilvusException as error:
            if path is None:
                raise Unavailable(
                    f"Milvus at {place} cannot be reached: {error.message}".splitlines()[0], "check index.url"
                ) from None
            hint = (
                "milvus-lite serves one process at a time. Of n2kit serve, ask its routes instead: POST /v1/recommend, "
                "POST and DELETE /v1/items; end any other; or use a cluster, by index.url"
            )
            raise Unavailable(f"milvus-lite cannot open {place}: is another process using it?", hint) from None
        return cls(client, config, path)

    def __len__(self) -> int:
        rows = self.client.query(self.config.collection, filter="", output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def add_fields(self, fields: Mapping[str, type]) -> None:
        """Nothing is to be done: rows have the fields that they were given."""

    def upsert(self, ids: Sequence[str], vectors: np.ndarray, fields: Mapping[str, np.ndarray]) -> None:
        for start in range(0, len(ids), ROWS):
            rows = [
                {
                    "id": ids[n],
                    "vector": vectors[n],
                    **_dynamic(ids[n], {name: column[n] for name, column in fields.items()}),
                }
                for n in range(start, min(start + ROWS, len(ids)))
            ]
            written = self.client.upsert(self.config.collection, rows)["upsert_count"]
            if written != len(rows):
                raise Unavailable(f"Milvus wrote {written} of {len(rows)} rows", "index all anew")

    def delete(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), IDS):
            self.client.delete(self.config.collection, filter=among(ids[start : start + IDS]))

    def scan(self, fields: Mapping[str, type], *, vectors: bool = False) -> Iterator[dict[str, np.ndarray]]:
        own = {"id": str, **fields}
        names = [*own, *(["vector"] if vectors else [])]
        behind = ""
        while batch := self.client.query(
            self.config.collection, filter=behind, output_fields=names, limit=ROWS, **IN_ORDER
        ):
            piece = {name: _column([row.get(name) for row in batch], kind) for name, kind in own.items()}
            yield piece | ({"vector": np.array([row["vector"] for row in batch], np.float32)} if vectors else {})
            behind = after(batch[-1]["id"])

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        found: dict[str, Any] = {}
        for start in range(0, len(ids), IDS):
            some = among(ids[start : start + IDS])
            for row in self.client.query(self.config.collection, filter=some, output_fields=["id", "vector"]):
                found[row["id"]] = row["vector"]
        return np.array([found[item_id] for item_id in ids], np.float32)

    def search(
        self, queries: np.ndarray, k: int, condition: Condition | None = None
    ) -> list[tuple[list[str], np.ndarray]]:
        asked: dict[str, dict[str, int]] = {
            "exact": {}, "ivf_flat": {"nprobe": self.config.probes}, "hnsw": {"ef": max(self.config.depth, k)},
        }  # fmt: skip
        found: list[tuple[list[str], np.ndarray]] = []
        for start in range(0, len(queries), QUERIES):
            answers = self.client.search(
                self.config.collection,
                data=list(queries[start : start + QUERIES]),
                limit=k,
                filter="" if condition is None else expression(condition),
                anns_field="vector",
                search_params={"metric_type": "IP", "params": asked[self.config.search]},
            )
            for hits in answers:
                scores = np.array([hit["distance"] for hit in hits], np.float32)
                best = np.argsort(-scores, kind="stable")
                found.append(([hits[n]["id"] for n in best], scores[best]))
        return found

    def compact(self) -> None:
        self.client.flush(self.config.collection)
        self.client.compact(self.config.collection)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.client.close()
        if self.path is not None:
            with _LOCK:
                _OPEN[str(self.path)] -= 1
                if not _OPEN[str(self.path)]:  # the last of this process lets others in
                    from milvus_lite.server_manager import server_manager_instance

                    server_manager_instance.release_server(str(self.path))


def _dynamic(item_id: str, row: Mapping[str, str | float]) -> dict[str, str | float]:
    """Take the values that are there.

    Raises:
        BadInput: they are more than Milvus takes.
    """
    there = {name: value for name, value in row.items() if isinstance(value, str) or not math.isnan(value)}
    if (size := len(json.dumps(there, ensure_ascii=False).encode())) > LONGEST_ROW:
        what = f"item {item_id!r} has {size:,} bytes beside its vector, and Milvus takes {LONGEST_ROW:,}"
        raise BadInput(what, "shorten its texts; of pictures, give paths")
    return there


def _column(values: list[Any], kind: type) -> np.ndarray:
    """Read a column: numbers with NaN for none, or texts with "" for none."""
    nothing: Any = "" if kind is str else np.nan
    return np.array([nothing if value is None else value for value in values], object if kind is str else np.float64)
