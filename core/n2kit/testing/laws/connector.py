"""Laws of connectors."""

from __future__ import annotations

import torch

from n2kit.testing.laws import law
from n2kit.testing.laws.compare import close, differ
from n2kit.testing.under_test import ConnectorUnderTest, draw


@law("connector")
def gives_the_tokens_it_promises(under_test: ConnectorUnderTest) -> None:
    """The card's tokens are the part's, and forward gives [I, Q, De] of them, finite."""
    part, llm = under_test.part, under_test.cards[1]
    promised = under_test.card().tokens
    assert part.tokens == promised, f"the card says {promised} tokens, the part {part.tokens}"
    with torch.no_grad():
        out = part(*under_test.inputs(2))
    want = (2, promised, llm.input_width)
    assert tuple(out.shape) == want, f"forward gives {list(out.shape)}, not {list(want)}"
    assert out.isfinite().all(), "visual tokens are not finite"


@law("connector")
def the_image_matters(under_test: ConnectorUnderTest) -> None:
    """Other vision tokens give other visual tokens."""
    with torch.no_grad():
        out = under_test.perturbed()(*under_test.inputs(2))
    differ(out[0], out[1], "visual tokens of two images")


@law("connector")
def gradients_reach_the_image(under_test: ConnectorUnderTest) -> None:
    """A vision encoder can learn through the connector."""
    tokens = under_test.inputs()[0].clone().requires_grad_()
    out = under_test.perturbed()(tokens)
    (out * draw(*out.shape, seed=7)).sum().backward()
    assert tokens.grad is not None, "the vision tokens get no gradient"
    assert tokens.grad.isfinite().all(), "the gradient of the vision tokens is not finite"
    assert tokens.grad.abs().sum() > 0, "the gradient of the vision tokens is zero"


@law("connector", capability="mask")
def hidden_tokens_change_nothing(under_test: ConnectorUnderTest) -> None:
    """Vision tokens that `mask` hides do not change the output."""
    tokens = under_test.inputs()[0]
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    mask[:, -5:] = False
    other = tokens.clone()
    other[:, -5:] = draw(len(tokens), 5, tokens.shape[-1], seed=8) * 3
    with torch.no_grad():
        close([under_test.part(tokens, mask)], [under_test.part(other, mask)], "outputs with other hidden tokens")
