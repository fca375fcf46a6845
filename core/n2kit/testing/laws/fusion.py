"""Laws of late fusions."""

from __future__ import annotations

from typing import Any

import torch

from n2kit.errors import Mismatch
from n2kit.testing.laws import law
from n2kit.testing.laws.compare import differ, equal
from n2kit.testing.under_test import FusionUnderTest


@law("fusion")
def has_the_width_of_its_card(under_test: FusionUnderTest) -> None:
    """hidden [B, Dh] → [B, `output_width`], finite: Dh, unless the card says otherwise and the fusion reads `has_image`."""
    part, hidden = under_test.part, under_test.inputs()[0]
    with torch.no_grad():
        out = part(*under_test.inputs(), **under_test.options())
    want = (len(hidden), under_test.card().output_width or hidden.shape[1])
    assert out.shape == want, f"forward gives {list(out.shape)}, not {list(want)}"
    assert part.output_width == want[1], f"output_width is {part.output_width}, and the card says {want[1]}"
    assert want[1] == hidden.shape[1] or "has_image" in part.extra_inputs, (
        "an item without an image keeps its word, of another width: read has_image"
    )
    assert out.isfinite().all(), "fused words are not finite"


@law("fusion")
def what_is_not_there_is_not_read(under_test: FusionUnderTest) -> None:
    """A fusion that reads `has_image` or `has_text` gives a finite output without that half, and one that does not depend on it."""
    hidden, pooled = under_test.inputs()
    options = under_test.options()
    for name in sorted({"has_image", "has_text"} & under_test.part.extra_inputs):
        without = options | {name: torch.zeros(len(hidden), dtype=torch.bool)}
        other: tuple[Any, ...] = (hidden.flip(0), pooled)
        if name == "has_image":
            other = (hidden, None if pooled is None else pooled.flip(0))
            moved = {k: without[k].flip(0) for k in ("tokens", "mask") if isinstance(without.get(k), torch.Tensor)}
        else:
            moved = {}
        with torch.no_grad():
            part = under_test.perturbed()
            out = part(hidden, pooled, **without)
            assert out.isfinite().all(), f"outputs are not finite where {name} is false"
            equal(
                [out], [part(*other, **without | moved)], f"the fused word where {name} is false, for another such half"
            )


@law("fusion")
def the_image_matters(under_test: FusionUnderTest) -> None:
    """Where the fusion has parameters, another image gives another output; and the hidden state itself always matters."""
    hidden, pooled = under_test.inputs()
    options = under_test.options()
    other = {k: v.flip(0) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    with torch.no_grad():
        part = under_test.perturbed()
        out = part(hidden, pooled, **options)
        if under_test.card().parameters or "has_image" in part.extra_inputs:
            changed = part(hidden, None if pooled is None else pooled.flip(0), **other)
            differ(out[0], changed[0], "the fused word, for another image")
        differ(out, part(hidden.flip(0), pooled, **options), "the fused word, for another hidden state")


@law("fusion")
def an_encoder_without_pooled_vector_is_no_crash(under_test: FusionUnderTest) -> None:
    """The card function takes a card of `pooled_width` 0; a fusion that reads tokens alone then works."""
    from dataclasses import replace

    other = FusionUnderTest(under_test.component)
    other.cards = (replace(under_test.cards[0], pooled_width=0), under_test.cards[1])
    try:
        card = other.card()
    except Mismatch:
        return
    if not card.pooled:
        with torch.no_grad():
            out = other.part(under_test.inputs()[0], None, **under_test.options())
        assert out.isfinite().all(), "fused words are not finite without a pooled vector"
