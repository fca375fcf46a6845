"""Indexes by faiss: an exact one, and those that are smaller or faster."""

from n2kit.contract import ComponentSpec, hookimpl

N2KIT_PLUGIN_API = (2, 1)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        _spec(
            "flat",
            "flat:FlatIndex",
            "exact search by faiss; every query looks at every vector",
            "NoOptions",
            exact=True,
        ),
        _spec("sq8", "approximate:SQ8Index", "one byte a number: a quarter of the memory, nearly exact", "NoOptions"),
        _spec(
            "hnsw", "approximate:HNSWIndex", "a graph: fast searches, slow to build, more memory", "HNSWOptions", "m"
        ),
        _spec(
            "ivf", "approximate:IVFIndex", "lists of near vectors: fast searches, quick to build", "IVFOptions", "lists"
        ),
        _spec(
            "pq", "approximate:PQIndex", "a few numbers a byte: the least memory, the least exact", "PQOptions", "bytes"
        ),
        _spec(
            "int8",
            "rescored:Int8Index",
            "one byte a number in memory, then the best by their vectors on disk",
            "RescoreOptions",
            "rescore",
        ),
        _spec(
            "binary",
            "rescored:BinaryIndex",
            "one bit a number in memory, then the best by their vectors on disk",
            "RescoreOptions",
            "rescore",
        ),
    ]


def _spec(
    name: str, target: str, summary: str, config: str, shorthand: str | None = None, *, exact: bool = False
) -> ComponentSpec:
    return ComponentSpec(
        kind="index", name=name, target=f"n2kit_faiss.{target}", summary=summary,
        config=f"n2kit_faiss.config:{config}", shorthand=shorthand,
        capabilities=frozenset({"exact"} if exact else ()),
    )  # fmt: skip
