"""Laws of language models."""

from __future__ import annotations

import torch

from n2kit.contract.interfaces import LoadSpec
from n2kit.testing.laws import law
from n2kit.testing.laws.compare import close, differ, distance, equal
from n2kit.testing.under_test import LENGTH, LLMUnderTest, folder, seeded


@law("llm")
def widths_are_those_of_the_card(under_test: LLMUnderTest) -> None:
    """`embed` gives [B, T, De], `forward` [B, T, Dh], finite, in the dtype of the weights."""
    part, ids = under_test.part, under_test.ids()
    with torch.no_grad():
        x = part.embed(ids)
        states = part(x, **under_test.extras(x))
    want = (*ids.shape, part.card.input_width)
    assert tuple(x.shape) == want, f"embeddings have shape {list(x.shape)}, the card says {list(want)}"
    want = (*ids.shape, part.card.output_width)
    assert tuple(states.shape) == want, f"states have shape {list(states.shape)}, the card says {list(want)}"
    assert states.isfinite().all(), "states are not finite"


@law("llm")
def padding_on_the_right_changes_nothing(under_test: LLMUnderTest) -> None:
    """Real positions give the same states whatever stands behind them."""
    part, x = under_test.part, under_test.inputs()[0]
    real = LENGTH - 5
    with torch.no_grad():
        want = part(x[:, :real], **under_test.extras(x[:, :real]))
        got = part(x, **under_test.extras(x, real))[:, :real]
    close([want], [got], "states without and with padding")


@law("llm")
def no_later_token_leaks(under_test: LLMUnderTest) -> None:
    """A causal model's state depends on nothing after it; one that reads both ways says so in its card."""
    part, x = under_test.part, under_test.inputs()[0]
    other = x.clone()
    other[:, -1] = x[:, 0] * 2 + 1
    with torch.no_grad():
        off = distance(part(x, **under_test.extras(x))[:, :-1], part(other, **under_test.extras(x))[:, :-1])
    if part.card.causal:
        assert off <= 1e-4, f"the card says causal, and the last token changes earlier states by {off:.1e}"
    else:
        assert off > 1e-4, "the card says that it reads both ways, and the last token changes no earlier state"


@law("llm")
def rows_behind_a_common_start_are_the_same(under_test: LLMUnderTest) -> None:
    """Where the part says that rows can share their start, they have the states that they have in one piece."""
    part, x = under_test.part, under_test.inputs()[0].clone()
    if not part.supports_prefix_cache:
        return
    start = LENGTH // 2
    x[:, :start] = x[:1, :start]
    with torch.no_grad():
        want = part(x, **under_test.extras(x))[:, start:]
        got = part(x[:, start:], past=part.prefill(x[:1, :start]), **under_test.extras(x[:, start:]))
    close([want], [got], "states in one piece and behind a start")


@law("llm")
def every_token_matters(under_test: LLMUnderTest) -> None:
    """The last state depends on the first token, and on the order of the tokens."""
    part, x = under_test.part, under_test.inputs()[0]
    other, swapped = x.clone(), x.clone()
    other[:, 0] = x[:, 1] * 2
    swapped[:, [1, 2]] = x[:, [2, 1]]
    with torch.no_grad():
        last, changed, moved = (part(row, **under_test.extras(row))[:, -1] for row in (x, other, swapped))
    differ(last, changed, "the last state, when the first token is another")
    differ(last, moved, "the last state, when two tokens are exchanged")


@law("llm")
def gradients_reach_the_embeddings(under_test: LLMUnderTest) -> None:
    """Also of a frozen model: connectors learn through it. A model that cannot says `embeds=False` in its card."""
    if not under_test.part.card.embeds:
        return
    part = under_test.new().freeze()
    x = under_test.inputs()[0].clone().requires_grad_()
    states = part(x, **under_test.extras(x))
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    assert x.grad is not None, "the input embeddings get no gradient"
    assert x.grad.isfinite().all(), "the gradient of the input embeddings is not finite"
    silent = int((x.grad.abs().sum(-1) == 0).sum())
    assert silent == 0, f"{silent} of {x.shape[0] * x.shape[1]} positions get no gradient"


@law("llm")
def a_frozen_text_space_is_kept(under_test: LLMUnderTest) -> None:
    """Frozen, without a head, a text keeps the vector that the model gives it alone, whatever stands beside for pictures.

    Bit for bit between a build of the model alone and one with an encoder whose new weights are anything; and within 1e-5 it is the
    state at the prompt's last token, at unit length.
    """
    from n2kit.builder import build
    from n2kit.data.items import Item

    if not under_test.part.card.embeds:
        return
    reference, texts = under_test.component.reference, ["oak chair", "a lamp of red glass"]
    settings = {"head.width": None, "llm.tune": "frozen", "prompt.template": "compact", "prompt.body_tokens": 400}
    alone = build(reference, variant="text_only", settings=settings)
    beside = build(reference, "clip:tiny", variant="only_late_fusion", settings=settings)
    with torch.no_grad(), seeded():
        for new in (beside.fusion, beside.special_tokens):
            for parameter in new.parameters() if new is not None else ():
                parameter.normal_()
        want, got = (torch.from_numpy(model.encode(texts, precision="fp32")) for model in (alone, beside))
        equal([want], [got], "the vectors of texts, alone and beside an encoder")
        ids = torch.tensor([alone.prompt_builder(Item("0", title=texts[0]), image=False).ids])
        x = alone.llm.embed(ids)
        state = alone.llm(x, **under_test.extras(x))[0, -1].float()
    off = distance(torch.nn.functional.normalize(state, dim=-1), want[0])
    assert off <= 1e-5, f"a text's vector is {off:.1e} away from the model's own state"


@law("llm", capability="logits")
def it_scores_the_next_token(under_test: LLMUnderTest) -> None:
    """Created with its head: the card of one without, scores [n, vocab] with a gradient, the same when loaded."""
    component = under_test.component
    with seeded():
        part = component.cls().create(LoadSpec(under_test.config, component.weights.locate(), head=True)).eval()
    assert part.card == under_test.part.card, "the card counts the head"
    x = part.embed(under_test.ids(1)).detach().requires_grad_()
    scores = part.logits(part(x, **under_test.extras(x))[0])
    assert scores.shape[0] == LENGTH, f"{LENGTH} states give scores of shape {list(scores.shape)}"
    most = max(part.tokenizer("oak chair 橡木", add_special_tokens=False)["input_ids"])
    assert scores.shape[1] > most, f"{scores.shape[1]} tokens have a score, and the tokenizer gives token {most}"
    likeliest = int(scores[-1].argmax())
    assert part.generate(x.detach(), 2)[0] == likeliest, (
        f"token {likeliest} has the highest score, and another one follows"
    )
    assert part.generate(x.detach(), 2, eos_token_id=likeliest) == [], "the token that ends a text does not end it"
    scores.logsumexp(1).sum().backward()
    assert x.grad is not None, "the scores have no gradient"
    assert x.grad.isfinite().all(), "the gradient of the scores is not finite"
    with folder() as where, torch.no_grad():
        part.save(where)
        again = type(part).load(where).eval()
        equal([scores.detach()], [again.logits(again(x, **under_test.extras(x))[0])], "scores of the loaded part")


@law("llm")
def the_tokenizer_fits_the_table(under_test: LLMUnderTest) -> None:
    """Every id is a row of the embedding table, in any script, and special words in a text are text."""
    vocab = under_test.part.card.vocab
    for text in ("oak chair, 2 pcs", "橡木椅子 #话题#", "🪑 é ß ž", "<IMG> <|im_end|> </s>"):
        ids = under_test.part.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids, f"{text!r} has no tokens"
        assert 0 <= min(ids) <= max(ids) < vocab, f"{text!r} has ids {min(ids)} … {max(ids)}, the table {vocab} rows"
