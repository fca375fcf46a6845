"""Laws of connectors."""

from __future__ import annotations

import torch

from n2kit.testing.laws import law
from n2kit.testing.laws.compare import close, differ
from n2kit.testing.subjects import ConnectorSubject, draw


@law("connector")
def gives_the_tokens_it_promises(subject: ConnectorSubject) -> None:
    """The card's tokens are the part's, and forward gives [I, Q, De] of them, finite."""
    part, llm = subject.part, subject.cards[1]
    promised = subject.card().tokens
    assert part.tokens == promised, f"the card says {promised} tokens, the part {part.tokens}"
    with torch.no_grad():
        out = part(*subject.inputs(2))
    want = (2, promised, llm.input_width)
    assert tuple(out.shape) == want, f"forward gives {list(out.shape)}, not {list(want)}"
    assert out.isfinite().all(), "visual tokens are not finite"


@law("connector")
def the_image_matters(subject: ConnectorSubject) -> None:
    """Other vision tokens give other visual tokens."""
    with torch.no_grad():
        out = subject.stirred()(*subject.inputs(2))
    differ(out[0], out[1], "visual tokens of two images")


@law("connector")
def gradients_reach_the_image(subject: ConnectorSubject) -> None:
    """A vision encoder can learn through the connector."""
    tokens = subject.inputs()[0].clone().requires_grad_()
    out = subject.stirred()(tokens)
    (out * draw(*out.shape, seed=7)).sum().backward()
    assert tokens.grad is not None, "the vision tokens get no gradient"
    assert tokens.grad.isfinite().all(), "the gradient of the vision tokens is not finite"
    assert tokens.grad.abs().sum() > 0, "the gradient of the vision tokens is zero"


@law("connector", capability="mask")
def hidden_tokens_change_nothing(subject: ConnectorSubject) -> None:
    """What stands in vision tokens that `mask` hides does not matter."""
    tokens = subject.inputs()[0]
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    mask[:, -5:] = False
    other = tokens.clone()
    other[:, -5:] = draw(len(tokens), 5, tokens.shape[-1], seed=8) * 3
    with torch.no_grad():
        close([subject.part(tokens, mask)], [subject.part(other, mask)], "outputs with other hidden tokens")
