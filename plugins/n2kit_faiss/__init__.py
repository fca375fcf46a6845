"""Indexes by faiss: flat (exact)."""

from n2kit.contract import ComponentSpec, hookimpl

N2KIT_PLUGIN_API = (2, 1)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="index",
            name="flat",
            target="n2kit_faiss.flat:FlatIndex",
            summary="exact search by faiss; every query looks at every vector",
            config="n2kit_faiss.config:NoOptions",
        )
    ]
