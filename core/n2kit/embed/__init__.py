"""Vectors of items: in memory (`encode`), or a whole catalogue to Parquet, resumably: a file (`embed`), or a folder (`dataset`)."""

from n2kit.embed.encode import Encoded, encode
from n2kit.embed.reading import open_vectors, read_vectors
from n2kit.embed.store import embed
from n2kit.embed.vectors_file import Vectors
from n2kit.utils.callable_package import make_callable

make_callable(__name__, "n2kit.api.work")

__all__ = ["Encoded", "Vectors", "embed", "encode", "open_vectors", "read_vectors"]
