"""Comparisons of tensors for laws, with messages that say what differs, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

TOLERANCE = 1e-4  # relative to the largest value: float32 sums in another order


def equal(want: Sequence[Tensor], got: Sequence[Tensor], what: str) -> None:
    """Assert that tensors are bit-equal."""
    assert len(want) == len(got), f"{what} gives {len(got)} tensors, not {len(want)}"
    for a, b in zip(want, got, strict=True):
        assert a.shape == b.shape, f"{what} has shape {list(b.shape)}, not {list(a.shape)}"
        assert a.equal(b), f"{what} differs by {distance(a, b):.1e} of the largest value"


def close(want: Sequence[Tensor], got: Sequence[Tensor], what: str) -> None:
    """Assert that tensors are equal up to rounding."""
    for a, b in zip(want, got, strict=True):
        assert a.shape == b.shape, f"{what}: shapes {list(a.shape)} and {list(b.shape)}"
        off = distance(a, b)
        assert off <= TOLERANCE, f"{what} differ by {off:.1e} of the largest value"


def differ(a: Tensor, b: Tensor, what: str) -> None:
    """Assert that two tensors differ."""
    assert distance(a, b) > TOLERANCE, f"{what}: nothing changes"


def distance(a: Tensor, b: Tensor) -> float:
    """Compute the largest difference over the largest value; infinite where one is not finite."""
    if not (a.isfinite().all() and b.isfinite().all()):
        return float("inf")
    a, b = a.detach().float(), b.detach().float()
    return float((a - b).abs().max() / a.abs().max().clamp_min(1e-12))


def same_state(want: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Assert that two state dicts have equal names and bit-equal tensors."""
    assert want.keys() == got.keys(), f"names differ: {sorted(want.keys() ^ got.keys())[:3]}"
    changed = [name for name, tensor in want.items() if not tensor.equal(got[name])]
    assert not changed, f"changed: {', '.join(changed[:3])}"
