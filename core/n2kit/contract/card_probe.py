"""Vision cards that only the architecture itself can tell: measured on an empty image, and cached from run to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.contract.cards import VisionCard
from n2kit.errors import BadInput
from n2kit.utils.cache import cache_folder
from n2kit.utils.files import read_json, write_json

if TYPE_CHECKING:
    from torch import nn

    from n2kit.contract.interfaces import VisionEncoder


def measure_card(encoder: VisionEncoder, size: int, prefix_tokens: int) -> VisionCard:
    """Measure the card of an encoder in one forward pass of an empty image of `size` pixels.

    Args:
        prefix_tokens: the number of tokens before the grid, which no shape tells.

    Raises:
        BadInput: a weight is NaN or infinite, and so is what comes out.
    """
    import torch

    from n2kit.utils.contexts import eval_mode, one_thread_if_small

    parameter = next(encoder.parameters())
    with torch.no_grad(), eval_mode(encoder), one_thread_if_small(encoder):
        out = encoder(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    values = not out.tokens.is_meta  # a card may be measured before there are any
    if values and not out.tokens.isfinite().all() and (problem := non_finite_weight(encoder)) is not None:
        raise BadInput(f"the vision encoder's {problem}", "copy or download the weights again")
    return VisionCard(
        tokens=out.tokens.shape[1],
        token_width=out.tokens.shape[2],
        pooled_width=0 if out.pooled is None else out.pooled.shape[1],
        image_size=size,
        parameters=sum(p.numel() for p in encoder.parameters()),
        prefix_tokens=prefix_tokens,
    )


def non_finite_weight(part: nn.Module) -> str | None:
    """Name the first weight that holds a NaN or an infinity, with how many; None where all are finite."""
    for name, tensor in part.named_parameters():
        if tensor.is_floating_point() and (bad := int((~tensor.isfinite()).sum())):
            return f"{name}: {bad} of {tensor.numel()} numbers are NaN or infinite"
    return None


def cached_card(distribution: str, architecture: str, measure: Callable[[], VisionCard]) -> VisionCard:
    """Return the card of an architecture (its options as text), by `measure()` once a version of its library.

    The cache is a convenience: one that cannot be read or written is passed over.
    """
    key = {"library": f"{distribution} {version(distribution)}", "architecture": architecture}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
    file = cache_folder() / "cards" / f"{digest}.json"
    card = _read(file, key)
    if card is None:
        card = measure()
        with suppress(OSError):
            write_json(file, {"of": key, "card": asdict(card)}, durable=False)
    return card


def _read(file: Path, key: dict[str, str]) -> VisionCard | None:
    try:
        content = read_json(file)
        card = VisionCard(**content["card"]) if content["of"] == key else None
    except (OSError, BadInput, TypeError, KeyError):
        return None
    return card if card is not None and all(type(v) is int for v in asdict(card).values()) else None
