"""A frozen vision encoder's output on disk: one file an image, named by the image's content."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.contract.interfaces import VisionOut
from n2kit.inputs.tensor_store import ENCODER, TensorStore, digest_of

if TYPE_CHECKING:
    from n2kit.contract.interfaces import VisionEncoder


class FeatureStore(TensorStore):
    """A `TensorStore` of one image's `VisionOut` by the image's content.

    Args:
        dtype: the encoder's outputs differ by what they are computed in, and so does their place.
    """

    def __init__(self, vision: VisionEncoder, max_bytes: int, dtype: str = "", root: Path | None = None) -> None:
        super().__init__(max_bytes, root)
        self.vision, self.dtype = vision, dtype

    def fingerprint(self) -> str:
        return encoder_fingerprint(self.vision, self.root, self.dtype)

    def find(self, content: str) -> VisionOut | None:
        """Read the output for the image with this sha256; None if there is none."""
        found = self.read(content) or {}
        return VisionOut(found["tokens"], found.get("pooled"), found.get("mask")) if "tokens" in found else None

    def add(self, content: str, row: VisionOut) -> None:
        """Store tokens [N, Dv], pooled [Dp] and mask [N] of the image with this sha256, if there is room."""
        self.write(content, {name: t for name, t in row._asdict().items() if t is not None})


def encoder_fingerprint(vision: VisionEncoder, room: Path, dtype: str = "") -> str:
    """Hash all that an encoder's output depends on: weights, configuration, its transform, the precision.

    The weights are hashed where they lie; the hash is remembered (`digest_of`). An encoder that does not tell its settings is saved into
    `room`, and its files are hashed.
    """
    about = f"{vision.transform_id} {dtype} {vision.settings_id}"
    if vision.settings_id is not None:
        return digest_of(about, vision.state_dict(), vision.origin)
    digest = hashlib.sha256(about.encode())
    with tempfile.TemporaryDirectory(prefix=ENCODER, dir=room) as aside:
        vision.save(Path(aside))
        for file in sorted(p for p in Path(aside).rglob("*") if p.is_file()):
            digest.update(file.relative_to(aside).as_posix().encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:24]
