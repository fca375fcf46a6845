"""Models and vectors in the forms of other programs: sentence-transformers, ONNX, faiss, Parquet, embedding-atlas."""

from n2kit.export.kinds import KINDS, export

__all__ = ["KINDS", "export"]
