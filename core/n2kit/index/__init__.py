"""Indexes of vectors: built from an embed file, searched by vector or by item."""

from n2kit.index.store import Index, Neighbour, StoredIndex, build_index, index_of, load_index

__all__ = ["Index", "Neighbour", "StoredIndex", "build_index", "index_of", "load_index"]
