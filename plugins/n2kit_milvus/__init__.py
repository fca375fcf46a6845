"""Indexes that are kept by Milvus: a file of milvus-lite, or a cluster by its address."""

from n2kit.contract import ComponentSpec, hookimpl

N2KIT_PLUGIN_API = (2, 1)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="index",
            name="milvus",
            target="n2kit_milvus.store:MilvusStore",
            summary="a Milvus collection, by milvus-lite or on a cluster: changed in place, filters",
            config="n2kit_milvus.config:MilvusOptions",
            shorthand="search",
            requires=("pymilvus>=3", "milvus-lite>=3.2"),
            extra="milvus",
            capabilities=frozenset({"exact"}),
        )
    ]
