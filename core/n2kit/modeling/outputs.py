"""Outputs of third parties' parts, held to the shapes of the contract: a wrong one is said with its part, where it is made.

n2kit's own parts are held to them by their laws, and not again in each forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from n2kit.contract.interfaces import LLM, Connector, Fusion, Loss, LossOut, Part, VisionEncoder, VisionOut
from n2kit.plugins.blame import accuse, is_foreign


def watch(part: Part) -> None:
    """Let a third party's part say of itself that it breaks the contract; do nothing with n2kit's own."""
    if is_foreign(part) and _raise_wrong_output not in part._forward_hooks.values():
        part.register_forward_hook(_raise_wrong_output)


def _raise_wrong_output(part: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
    if (wrong := wrong_output(part, inputs, out)) is not None:
        raise accuse(part, wrong) or AssertionError(wrong)


def wrong_output(part: nn.Module, inputs: tuple[Any, ...], out: Any) -> str | None:
    """Return what is wrong with the output of a part's forward; None for a right one."""
    if isinstance(part, Loss):
        return _wrong_loss(inputs, out)
    if isinstance(part, VisionEncoder):
        return _wrong_vision(part, len(inputs[0]), out)
    if isinstance(part, Connector):
        return _wrong("forward", out, (len(inputs[0]), part.tokens, getattr(part.cards["llm"], "input_width", 0)))
    if isinstance(part, Fusion):
        return _wrong("forward", out, (len(inputs[0]), part.output_width))
    if isinstance(part, LLM):
        return _wrong("forward", out, (*inputs[0].shape[:2], part.card.output_width))
    return None


def _wrong_vision(part: VisionEncoder, images: int, out: Any) -> str | None:
    card = part.card
    if not isinstance(out, VisionOut):
        return f"its forward gives {_kind(out)}, not VisionOut"
    if card.pooled_width and out.pooled is None:
        return f"its forward gives no pooled vector, and its card says {card.pooled_width}"
    return (
        _wrong("tokens", out.tokens, (images, card.tokens, card.token_width))
        or (_wrong("pooled", out.pooled, (images, card.pooled_width)) if card.pooled_width else None)
        or (None if out.mask is None else _wrong("mask", out.mask, (images, card.tokens)))
    )


def _wrong_loss(inputs: tuple[Any, ...], out: Any) -> str | None:
    if not isinstance(out, LossOut) or not isinstance(out.loss, Tensor) or not isinstance(out.terms, Mapping):
        return f"its forward gives {_kind(out)}, not LossOut of a tensor and a mapping"
    if out.loss.shape != ():
        return f"its loss has shape {list(out.loss.shape)}, not that of one number"
    if bad := [name for name, term in out.terms.items() if not isinstance(term, Tensor) or term.numel() != 1]:
        return f"its term {bad[0]!r} is no tensor of one number"
    views = inputs[0].values() if inputs and isinstance(inputs[0], Mapping) else ()
    learning = torch.is_grad_enabled() and any(view.requires_grad for view in views)
    return "its loss has no gradient" if learning and not out.loss.requires_grad else None


def _wrong(what: str, found: Any, shape: tuple[int, ...]) -> str | None:
    if not isinstance(found, Tensor):
        return f"its {what} is {_kind(found)}, not a tensor"
    return None if found.shape == shape else f"its {what} has shape {list(found.shape)}, not {list(shape)}"


def _kind(value: Any) -> str:
    return "None" if value is None else type(value).__name__
