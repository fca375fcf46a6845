"""Indexes that are kept by LanceDB: a folder, or an object store by its URL."""

from n2kit.contract import ComponentSpec, hookimpl

N2KIT_PLUGIN_API = (2, 1)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="index",
            name="lancedb",
            target="n2kit_lancedb.store:LanceStore",
            summary="a LanceDB table in a folder or an object store: changed in place, filters, words",
            config="n2kit_lancedb.config:LanceOptions",
            shorthand="search",
            requires=("lancedb>=0.30",),
            extra="lancedb",
            capabilities=frozenset({"exact", "full-text"}),
        )
    ]
