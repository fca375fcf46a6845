"""The forms that a model or its vectors can be exported to, and the one way to do it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from n2kit.data.tables import ensure_parquet_name
from n2kit.errors import BadInput, Unavailable, suggest
from n2kit.utils.files import ensure_writable_file
from n2kit.utils.folders import ensure_outside_bundles


class Kind(NamedTuple):
    """A form of export: what it is made of, whether a folder or a file, and the function that writes it."""

    of: str
    folder: bool
    target: str
    needs: tuple[str, ...] = ()


KINDS = {
    "sentence-transformers": Kind(
        "bundle", True, "n2kit.export.sentence_transformer:write", ("sentence_transformers",)
    ),
    "onnx": Kind("bundle", True, "n2kit.export.onnx_parts:write", ("onnx", "onnxruntime", "onnxscript")),
    "faiss": Kind("vectors", False, "n2kit.export.vectors:write_faiss"),
    "parquet": Kind("vectors", False, "n2kit.export.vectors:write_parquet"),
    "qdrant": Kind("vectors", False, "n2kit.export.points:write_qdrant"),
    "pgvector": Kind("vectors", False, "n2kit.export.points:write_pgvector"),
    "atlas": Kind("vectors", False, "n2kit.export.atlas:write"),
}


def export(source: str | Path, kind: str, out: str | Path, *, force: bool = False, **options: Any) -> dict[str, Any]:
    """Write a bundle, an embed file or an index in the form of another program; return what was written.

    Args:
        source: a bundle or a run, for models; an embed file or an index, for vectors.
        options: `items` and `images`, for the kinds that show items.

    Raises:
        BadInput: no such kind; a source that is none of it; something in the way, and `force` not set. Unavailable: a missing library.
    """
    source, out = Path(source), Path(out)
    if kind not in KINDS:
        raise BadInput(f"nothing is exported to {kind!r}", suggest(kind, KINDS) or f"known: {', '.join(KINDS)}")
    found = KINDS[kind]
    if missing := [name for name in found.needs if importlib.util.find_spec(name) is None]:
        raise Unavailable(f"--to {kind} needs {missing[0]}, which is not installed", "pip install 'n2kit[export]'")
    if not found.folder:
        if out.exists() and not force:
            raise BadInput(f"{out} exists", "give another place, or --force to replace it")
        ensure_writable_file(out, [source])
        if kind in ("parquet", "atlas"):
            ensure_parquet_name(out)
        ensure_outside_bundles(out)
    module, _, name = found.target.partition(":")
    write: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    return {"kind": kind, "out": str(out)} | write(source, out, **({"force": force} if found.folder else {}), **options)
