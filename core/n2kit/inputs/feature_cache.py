"""A frozen vision encoder's output, computed once an image, and cached in memory and on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from n2kit.contract.interfaces import VisionOut
from n2kit.data.image_source import GivenImage, locate
from n2kit.inputs.feature_store import FeatureStore
from n2kit.modeling.vision import encode_images
from n2kit.utils.contexts import autocast
from n2kit.utils.files import real_path

if TYPE_CHECKING:
    from n2kit.contract.interfaces import VisionEncoder


MOST_IMAGES = 64  # on any device: a large batch of new images must not decide how much memory a training needs


def feature_cache(
    vision: VisionEncoder | None, gigabytes: float, images: Path | None, dtype: torch.dtype, *, memory: bool = True
) -> FeatureCache | None:
    """Make a cache in memory and in the user's cache folder, `gigabytes` of each; None where nothing can be cached.

    Args:
        memory: false for a single pass over the images, in which none comes back.
    """
    if vision is None or not vision.frozen or not gigabytes or images is None:
        return None
    most = int(gigabytes * 1e9)
    store = FeatureStore(vision, most, str(dtype))
    return FeatureCache(vision, most if memory else 0, images=images, store=store, dtype=dtype)


class FeatureCache:
    """A cache of up to `max_bytes`: image path → tokens [N, Dv], pooled [Dp], mask [N] of one frozen encoder, in one images folder.

    Args:
        images: the folder of the images. With it, the key of an image is its content: one that changes under its name is encoded
            again. Without it, the key is its path.
        store: the cache on disk, by content; needs `images`.
        dtype: the type that the encoder is computed in, by autocast; None: the type of its weights.
    """

    def __init__(
        self,
        vision: VisionEncoder,
        max_bytes: int,
        *,
        images: Path | None = None,
        store: FeatureStore | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not vision.frozen:
            raise ValueError("only a frozen encoder's output can be cached")
        self.vision, self.max_bytes, self.bytes = vision, max_bytes, 0
        self.store, self.dtype = store, dtype
        self.contents = None if images is None else Contents(images)
        self.kept: dict[str, VisionOut] = {}
        self.prefetched: dict[str, VisionOut] = {}  # path → what `in` has found, for the next `rows`
        self.requested: dict[str, str | None] = {}  # path → the key that `in` has looked for

    def __contains__(self, path: str) -> bool:
        return self._find(path) is not None

    def rows(self, paths: Sequence[str], pixels: dict[str, Tensor]) -> list[VisionOut]:
        """Get one image's output for each of `paths`, computed from `pixels` (path → [3, H, W]) where it is not cached yet."""
        found = {path: self._find(path) for path in dict.fromkeys(paths) if path not in pixels}
        fresh = self._compute([path for path in dict.fromkeys(paths) if found.get(path) is None], pixels)
        self.prefetched.clear()
        self.requested.clear()
        return [found.get(path) or fresh[path] for path in paths]

    def _find(self, path: str) -> VisionOut | None:
        if path in self.prefetched:
            return self.prefetched[path]
        key = self.requested[path] = self._key(path)
        if key is None:
            return None
        row = self.kept.get(key)
        if row is None and self.store is not None and (row := self.store.find(key)) is not None:
            self._keep(key, row)
        if row is not None:
            self.prefetched[path] = row
        return row

    def _key(self, path: str) -> str | None:
        return path if self.contents is None else self.contents.digest(path)

    def _keep(self, key: str, row: VisionOut) -> None:
        size = sum(t.nbytes for t in row if t is not None)
        if key not in self.kept and self.bytes + size <= self.max_bytes:
            self.kept[key] = row.map(torch.clone)  # out of the batch, or out of the file, that it is a piece of
            self.bytes += size

    def _compute(self, missing: Sequence[str], pixels: dict[str, Tensor]) -> dict[str, VisionOut]:
        device = next(self.vision.parameters()).device
        fresh: dict[str, VisionOut] = {}
        for start in range(0, len(missing), MOST_IMAGES):
            some = missing[start : start + MOST_IMAGES]
            with torch.no_grad(), autocast(device, self.dtype):
                out = encode_images(self.vision, torch.stack([pixels[path] for path in some]).to(device)).map(
                    Tensor.cpu
                )
            fresh |= {path: out.map(lambda t, n=n: t[n]) for n, path in enumerate(some)}  # type: ignore[misc]
        for path, row in fresh.items():
            key = self._key(path)
            if key is not None and key == self.requested.get(
                path, key
            ):  # else the file has changed since it was decoded
                self._keep(key, row)
                fresh[path] = self.kept.get(key, row)
                if self.store is not None:
                    self.store.add(key, row)
        return fresh


class Contents:
    """A map from a path in a folder to the sha256 of the file's content, read again only when its size or time has changed."""

    def __init__(self, folder: Path) -> None:
        self.root = real_path(folder)
        self.known: dict[str, tuple[Path, int, int, str]] = {}

    def digest(self, path: str) -> str | None:
        """Hash the content of the file at `path`; None if it cannot be read, or lies outside the folder."""
        try:
            if isinstance(path, GivenImage) and not isinstance(path.source, Path):
                return path.partition(":")[2]  # its name says its content
            known = self.known.get(path)
            file = known[0] if known else _file(path, self.root)
            stat = file.stat()
            if known and known[1:3] == (stat.st_size, stat.st_mtime_ns):
                return known[3]
            if not file.is_file():
                return None
            with file.open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        except (OSError, RuntimeError, ValueError):  # NotFound, among them
            return None
        self.known[path] = (file, stat.st_size, stat.st_mtime_ns, found)
        return found


def _file(name: str, root: Path) -> Path:
    """Find an image's file: the one that was given, or the one of its name in the folder."""
    return name.source if isinstance(name, GivenImage) else locate(name, root)
