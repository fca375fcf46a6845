"""A fitted late fusion: what it does to both halves, as numbers; `n2kit_fusion.whitened` is the same as a part of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from n2kit.inputs.halves import Half, table

BLOCK = 8192


class HalfMap(NamedTuple):
    """x → ((x − mean) · scale) @ matrix, of one half [d]."""

    mean: np.ndarray
    scale: np.ndarray
    matrix: np.ndarray

    @classmethod
    def identity(cls, width: int) -> HalfMap:
        return cls(np.zeros(width), np.ones(width), np.eye(width))


@dataclass(frozen=True)
class Whitening:
    """Both halves' maps, and the weight w of the image, from 0 to 1.

    unit_halves: each half is scaled to unit length before it is weighed; else both keep their own.
    """

    text: HalfMap
    image: HalfMap
    image_weight: float
    unit_halves: bool = True

    def buffers(self) -> dict[str, np.ndarray]:
        """Name the numbers as the fusion `whitened` does."""
        named = {
            f"{half}_{name}": np.asarray(value, np.float32)
            for half, own in (("text", self.text), ("image", self.image))
            for name, value in zip(("mean", "scale", "map"), own, strict=True)
        }
        weight, unit = np.asarray(self.image_weight, np.float32), np.asarray(self.unit_halves)
        return named | {"image_weight": weight, "unit_halves": unit}

    def __call__(self, text: Half, image: Half) -> np.ndarray:
        """Fuse the halves of all items to unit vectors [n, Dh + Dp] float32; of an item with neither, zeros."""
        widths = text.values.shape[1], image.values.shape[1]
        out = table(len(text.values), sum(widths))
        for start in range(0, len(out), BLOCK):
            rows = slice(start, start + BLOCK)
            weight = image_weights(text.present[rows], image.present[rows], self.image_weight)[:, None]
            left = np.sqrt(1 - weight) * self._half(self.text, text, rows)
            fused = np.concatenate([left, np.sqrt(weight) * self._half(self.image, image, rows)], 1)
            out[rows] = unit(fused)
        return out

    def _half(self, own: HalfMap, half: Half, rows: slice) -> np.ndarray:
        mapped = ((half.values[rows] - own.mean) * own.scale) @ own.matrix * half.present[rows, None]
        return unit(mapped) if self.unit_halves else mapped


def image_weights(has_text: np.ndarray, has_image: np.ndarray, weight: float) -> np.ndarray:
    """Give the weight of the image in each item [n]: w; where there is one half alone, that one has all."""
    return np.where(has_image, np.where(has_text, weight, 1.0), 0.0)


def unit(values: np.ndarray) -> np.ndarray:
    """Scale rows [n, d] to unit length; zeros stay zeros."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)  # type: ignore[no-any-return]
