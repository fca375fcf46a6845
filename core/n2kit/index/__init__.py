"""Indexes of vectors: built from an embed file, searched by vector or by item."""

from n2kit.index.store import Neighbour, StoredIndex, build_index, index_of, load_index

__all__ = ["Neighbour", "StoredIndex", "build_index", "index_of", "load_index"]
