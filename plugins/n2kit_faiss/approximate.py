"""Indexes that are smaller or faster than the exact one, and may miss a neighbour."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from n2kit.errors import BadInput
from n2kit_faiss.config import HNSWOptions, IVFOptions, NoOptions, PQOptions
from n2kit_faiss.faiss_index import MOST_TRAINED_ON, FaissIndex, faiss

LEAST_A_LIST = 39  # vectors that faiss wants to train a list on


class SQ8Index(FaissIndex):
    """Every query looks at every vector, of which each number is one byte."""

    FILE = "sq8.faiss"
    TRAINS = True

    @classmethod
    def empty(cls, width: int, count: int, config: NoOptions) -> Any:
        return faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)

    @classmethod
    def is_own(cls, index: Any) -> bool:
        return isinstance(index, faiss.IndexScalarQuantizer)


class HNSWIndex(FaissIndex):
    """A graph of near vectors that a query walks along."""

    FILE = "hnsw.faiss"

    @classmethod
    def empty(cls, width: int, count: int, config: HNSWOptions) -> Any:
        index = faiss.IndexHNSWFlat(width, config.m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.build_depth
        index.hnsw.efSearch = config.depth
        return index

    @classmethod
    def is_own(cls, index: Any) -> bool:
        return isinstance(index, faiss.IndexHNSWFlat)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        depth = max(self.index.hnsw.efSearch, k)  # fewer candidates would leave places empty
        parameters = faiss.SearchParametersHNSW(efSearch=depth)
        scores, rows = self.index.search(np.ascontiguousarray(queries, dtype=np.float32), k, params=parameters)
        return scores, rows


class IVFIndex(FaissIndex):
    """Lists of near vectors, of which a query looks into the nearest."""

    FILE = "ivf.faiss"
    TRAINS = True

    @classmethod
    def empty(cls, width: int, count: int, config: IVFOptions) -> Any:
        most = max(1, min(count, MOST_TRAINED_ON) // LEAST_A_LIST)
        lists = min(config.lists or 4 * math.isqrt(count), most)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = config.probes
        index.cp.min_points_per_centroid = 1  # or faiss warns of few vectors on stderr
        index.set_direct_map_type(faiss.DirectMap.Array)
        return index

    @classmethod
    def is_own(cls, index: Any) -> bool:
        return isinstance(index, faiss.IndexIVFFlat)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Look into all lists where the nearest hold fewer than k vectors."""
        scores, rows = super().search(queries, k)
        short = (rows < 0).any(axis=1)
        if short.any() and self.index.nprobe < self.index.nlist:
            every = faiss.SearchParametersIVF(nprobe=self.index.nlist)
            wanted = np.ascontiguousarray(queries[short], dtype=np.float32)
            scores[short], rows[short] = self.index.search(wanted, k, params=every)
        return scores, rows


class PQIndex(FaissIndex):
    """Every query looks at every vector, of which a few numbers together are one byte."""

    FILE = "pq.faiss"
    TRAINS = True

    @classmethod
    def empty(cls, width: int, count: int, config: PQOptions) -> Any:
        pieces = config.bytes or max(1, width // 2)
        if width % pieces:
            divisors = [n for n in range(1, width + 1) if width % n == 0]
            near = min(divisors, key=lambda n: abs(n - pieces))
            raise BadInput(f"index pq: {width} numbers cannot be cut into {pieces} like pieces", f"pq:{near}")
        if count < 2:
            raise BadInput("index pq learns its codes from two vectors at least", "flat, for so few")
        bits = min(config.bits, max(1, int(math.log2(max(2, min(count, MOST_TRAINED_ON))))))
        index = faiss.IndexPQ(width, pieces, bits, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.min_points_per_centroid = 1
        return index

    @classmethod
    def is_own(cls, index: Any) -> bool:
        return isinstance(index, faiss.IndexPQ)
