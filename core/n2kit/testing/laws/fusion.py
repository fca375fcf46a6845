"""Laws of late fusions."""

from __future__ import annotations

import torch

from n2kit.errors import Mismatch
from n2kit.testing.laws import law
from n2kit.testing.laws.compare import differ
from n2kit.testing.under_test import FusionUnderTest


@law("fusion")
def keeps_the_width_of_the_word(under_test: FusionUnderTest) -> None:
    """hidden [B, Dh] → [B, Dh], finite."""
    with torch.no_grad():
        out = under_test.part(*under_test.inputs(), **under_test.options())
    want = under_test.inputs()[0].shape
    assert out.shape == want, f"forward gives {list(out.shape)}, not {list(want)}"
    assert out.isfinite().all(), "fused words are not finite"


@law("fusion")
def the_image_matters(under_test: FusionUnderTest) -> None:
    """Where the fusion has parameters, another image gives another output; and the hidden state itself always matters."""
    hidden, pooled = under_test.inputs()
    options = under_test.options()
    other = {k: v.flip(0) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    with torch.no_grad():
        part = under_test.perturbed()
        out = part(hidden, pooled, **options)
        if under_test.card().parameters:
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
