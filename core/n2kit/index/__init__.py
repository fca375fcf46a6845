"""Indexes of vectors: built from an embed file, searched by vector or by item."""

from n2kit.index.choice import choose_index
from n2kit.index.folder import Neighbour, StoredIndex, load_index
from n2kit.index.store import build_index, index_of
from n2kit.index.titles import Titles

__all__ = ["Neighbour", "StoredIndex", "Titles", "build_index", "choose_index", "index_of", "load_index"]
