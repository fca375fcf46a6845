"""A model as MTEB asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from n2kit.bundle.io import load
from n2kit.bundle.manifest import read_manifest
from n2kit.embed.encode import encode
from n2kit.errors import BadInput
from n2kit.modeling.model import Model
from n2kit.utils.folders import bundle_folder

ITEM = "item"  # the column that holds an item of n2kit's own, as JSON


class Encoder(AbsEncoder):  # type: ignore[misc]
    """A bundle that encodes MTEB's batches of texts and images. The model has a prompt of its own: MTEB's instructions are not read."""

    def __init__(self, model: Model, meta: ModelMeta) -> None:
        self.model, self.mteb_model_meta = model, meta

    @classmethod
    def of(cls, bundle: str | Path | Model, name: str | None) -> Encoder:
        """Load a bundle, and describe it to MTEB."""
        if isinstance(bundle, Model):
            model, fingerprint, own = bundle, None, "model"
        else:
            folder = bundle_folder(bundle)
            model, fingerprint = load(folder), read_manifest(folder).fingerprint
            own = folder.resolve().parent.name if folder.name == "bundle" else folder.resolve().name
        variant = model.variant
        meta = ModelMeta.create_empty(
            {
                "name": name or f"n2kit/{own}", "revision": fingerprint, "embed_dim": model.width, "use_instructions": False,
                "n_parameters": sum(p.numel() for p in model.parameters()), "similarity_fn_name": ScoringFunction.COSINE,
                "modalities": [*["text"] * variant.text, *["image"] * variant.image], "framework": ["PyTorch"],
            }
        )  # fmt: skip
        return cls(model, meta)

    def encode(self, inputs: Any, *, batch_size: int = 32, **_: Any) -> np.ndarray:
        """Encode batches of texts, images, or both: [n, d].

        Raises:
            BadInput: a row with neither.
        """
        found = [self._vectors(batch, batch_size) for batch in inputs]
        return np.concatenate(found) if found else np.empty((0, self.model.width), np.float32)

    def _vectors(self, batch: dict[str, Any], batch_size: int) -> np.ndarray:
        columns = {name: batch[name] for name in ("text", "image", ITEM) if name in batch}
        if not columns:
            raise BadInput(f"a batch of {', '.join(batch)}: neither text nor image")
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return encode(self.model, [_item(n, row) for n, row in enumerate(rows)], batch_size=batch_size).vectors


def _item(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """Make an item of a row: n2kit's own where it holds one, else its text as the title."""
    fields = json.loads(row[ITEM]) if ITEM in row else {"title": row.get("text", "")}
    if ITEM not in row and not fields["title"].strip() and row.get("image") is None:
        fields["title"] = "-"  # MTEB may hold empty texts, and every row gets a vector
    return fields | {"id": str(number), "image": row.get("image")}
