"""Connectors and fusions: what they compute, what they refuse, and that their cards say what is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import n2kit
from n2kit.bundle import io as bundle
from n2kit.contract.cards import LLMCard, VisionCard
from n2kit.errors import Mismatch
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.manager import manager

CONNECTORS = [o.spec.name for o in manager().components("connector")]
FUSIONS = [o.spec.name for o in manager().components("fusion")]
TINY = [f"{o.spec.name}:tiny" for o in manager().components("connector")]
# A CLS token and one width everywhere; and four different widths, none of them a multiple of another.
SAME = (VisionCard(17, 32, 32, 32, 0, prefix_tokens=1), LLMCard(32, 32, 2, 512, 512, 0))
DIFFERENT = (VisionCard(16, 24, 40, 32, 0), LLMCard(48, 56, 2, 512, 512, 0))
CARDS = {"same": SAME, "different": DIFFERENT}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "qformer": [{"layers": 3, "width": 24, "heads": 4, "cross_every": 1}],
    "resampler": [{"tokens": 3, "layers": 1, "heads": 3, "head_width": 5, "inner": 7}],
    "mlp": [{"depth": 3}, {"tokens": 5, "depth": 4}],
    "linear": [{"tokens": 9}],
    "pool": [{"tokens": 1}],
    "pixel-shuffle": [{"scale": 1, "depth": 1}, {"scale": 4, "depth": 3}],
    "cross-attention": [{"heads": 3, "head_width": 5}],
}
CHOICES = [
    *((kind, name, o) for kind, names in (("connector", CONNECTORS), ("fusion", FUSIONS)) for name in names
      for o in ({}, *OPTIONS.get(name, []))),
    *(("connector", name, {}) for name in TINY),
]  # fmt: skip


def resolved(kind: Any, name: str, options: dict[str, Any]) -> Any:
    component = default_catalogue().resolve(kind, name)
    return replace(component, options={**component.options, **options})


def card(kind: str, name: str, cards: tuple[VisionCard, LLMCard], **options: Any) -> Any:
    component = resolved(kind, name, options)
    return component.load(component.registered.spec.card)(component.config(), *cards)


def make(kind: str, name: str, cards: tuple[VisionCard, LLMCard], **options: Any) -> Any:
    component = resolved(kind, name, options)
    torch.manual_seed(0)
    return component.cls()(component.config(), vision=cards[0], llm=cards[1]).eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def image(cards: tuple[VisionCard, LLMCard], images: int = 2) -> Tensor:
    return draw(images, cards[0].tokens, cards[0].token_width)


@pytest.mark.parametrize("cards", CARDS)
@pytest.mark.parametrize(("kind", "name", "options"), CHOICES, ids=lambda v: str(v) if v else "-")
def test_the_card_is_what_is_built(kind: str, name: str, options: dict[str, Any], cards: str) -> None:
    try:
        said = card(kind, name, CARDS[cards], **options)
    except Mismatch:
        assert (name.partition(":")[0], cards) == ("identity", "different")
        return
    with torch.device("meta"):
        built = make(kind, name, CARDS[cards], **options)
    assert said.parameters == sum(p.numel() for p in built.parameters())
    if kind == "connector":
        assert said.tokens == built.tokens


@pytest.mark.parametrize("name", TINY)
def test_every_connector_gives_what_it_says_and_leaves_out_hidden_tokens(name: str) -> None:
    made, tokens = make("connector", name, SAME), image(SAME)
    out = made(tokens)
    assert out.shape == (2, made.tokens, 32)
    torch.testing.assert_close(made(tokens, torch.ones(2, 17, dtype=torch.bool)), out)
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[0, 6:13] = mask[1, 3] = False
    other = torch.where(mask[..., None], tokens, 100 * draw(2, 17, 32, seed=1))
    hidden = made(tokens, mask)
    torch.testing.assert_close(made(other, mask), hidden)
    assert not torch.allclose(hidden, out)
    assert torch.isfinite(made(tokens, torch.zeros(2, 17, dtype=torch.bool))).all()


@pytest.mark.parametrize(("kind", "name"), [("connector", n) for n in TINY] + [("fusion", n) for n in FUSIONS])
def test_bfloat16(kind: str, name: str) -> None:
    made, tokens = make(kind, name, SAME).bfloat16(), image(SAME).bfloat16()
    if kind == "connector":
        out = made(tokens)
    else:
        both = torch.ones(2, dtype=torch.bool)
        known = {"tokens": tokens, "mask": None, "has_text": both, "has_image": both}
        out = made(draw(2, 32).bfloat16(), draw(2, 32).bfloat16(), **{n: known[n] for n in made.extra_inputs})
    assert out.dtype == torch.bfloat16
    assert torch.isfinite(out).all()


def test_mlp_has_its_depth() -> None:
    made, tokens = make("connector", "mlp", DIFFERENT, depth=3), image(DIFFERENT)
    linears = [m for m in made.project if isinstance(m, torch.nn.Linear)]
    x = linears[0](tokens)
    for linear in linears[1:]:
        x = linear(F.gelu(x))
    assert len(linears) == 3
    torch.testing.assert_close(made(tokens), x)


def test_pool_averages_quarters_of_the_patches_that_are_seen() -> None:
    made, tokens = make("connector", "pool", SAME), image(SAME)
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[:, [1, 2, 5]] = False  # three of the four patches of the first quarter
    mask[:, [3, 4, 7, 8]] = False  # the second quarter
    grid = tokens[:, 1:].reshape(2, 4, 4, 32)
    whole = [grid[:, r : r + 2, c : c + 2].mean((1, 2)) for r in (0, 2) for c in (0, 2)]
    torch.testing.assert_close(made(tokens), made.project(torch.stack(whole, 1)))
    out = made(tokens, mask)
    torch.testing.assert_close(out[:, 0], made.project(tokens[:, 6]))
    assert not out[:, 1].any()
    torch.testing.assert_close(out[:, 2:], made.project(torch.stack(whole, 1))[:, 2:])


def test_pixel_shuffle_folds_squares() -> None:
    made, tokens = make("connector", "pixel-shuffle", SAME, depth=1), image(SAME)
    grid = tokens[:, 1:].reshape(2, 4, 4, 32)  # the CLS token is dropped
    squares = []
    for r in (0, 2):
        for c in (0, 2):
            square = grid[:, r : r + 2, c : c + 2].reshape(2, 4, 32)
            squares.append(torch.stack([square[:, p, d] for d in range(32) for p in range(4)], 1))
    folded = torch.stack(squares, 1)
    torch.testing.assert_close(made(tokens), made.project(F.layer_norm(folded, (128,))))
    mask = torch.ones(2, 17, dtype=torch.bool)
    mask[:, [1, 2, 5, 6]] = False
    assert not made(tokens, mask)[:, 0].any()


@pytest.mark.parametrize(
    ("tokens", "prefix", "scale", "numbers", "fix"),
    [
        (15, 0, 2, "15 form none", "resampler or pool, or an encoder of 16 patches"),
        (50, 1, 2, "squares of 2 × 2 patches, and the vision encoder gives 7 × 7", "connector.scale=7"),
        (36, 0, 4, "gives 6 × 6", "connector.scale=2 or 3 or 6"),
        (16, 0, 8, "gives 4 × 4", "connector.scale=2 or 4"),
    ],
)
def test_pixel_shuffle_refuses_what_it_cannot_fold(
    tokens: int, prefix: int, scale: int, numbers: str, fix: str
) -> None:
    vision = VisionCard(tokens, 32, 32, 32, 0, prefix_tokens=prefix)
    with pytest.raises(Mismatch, match=numbers) as caught:
        card("connector", "pixel-shuffle", (vision, SAME[1]), scale=scale)
    assert fix in (caught.value.hint or "")


def test_identity_passes_tokens_on_or_says_why_not() -> None:
    tokens = image(SAME)
    assert torch.equal(make("connector", "identity", SAME)(tokens), tokens)
    with pytest.raises(Mismatch, match="24 wide, and the language model reads 48") as caught:
        card("connector", "identity", DIFFERENT)
    assert caught.value.hint == "--connector linear"
    with pytest.raises(Mismatch, match="average to 17 tokens, and the vision encoder gives 16"):
        card("connector", "pool", SAME, tokens=17)


def test_the_resamplers_attention_is_the_perceivers() -> None:
    from transformers.models.idefics.perceiver import IdeficsPerceiverAttention

    layer = make("connector", "resampler:tiny", SAME).layers[0]
    upstream = IdeficsPerceiverAttention(32, 2, 16, qk_layer_norms=False)
    key, value = layer.key_value.weight.chunk(2)
    upstream.load_state_dict(
        {"q_proj.weight": layer.query.weight, "k_proj.weight": key, "v_proj.weight": value}
        | {"output_proj.weight": layer.out.weight}
        | {f"context_layer_norm.{k}": v for k, v in layer.norm_image.state_dict().items()}
        | {f"latents_layer_norm.{k}": v for k, v in layer.norm_latents.state_dict().items()}
    )
    latents, tokens = draw(2, 4, 32, seed=1), image(SAME)
    read = latents + upstream(tokens, latents)
    torch.testing.assert_close(layer(latents, tokens, None), read + layer.feed_forward(read))


def gated(made: Any, n: Tensor, e: Tensor) -> Tensor:
    return torch.sigmoid(F.linear(torch.cat([n, e], -1), made.gate.weight))


def unit(x: Tensor) -> Tensor:
    return x / x.pow(2).mean(-1, keepdim=True).sqrt()


def mixed(z: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return z * a + (1 - z) * b


DEFINITIONS: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "gate": lambda made, n, e: mixed(gated(made, n, e), n, e),
    "normalised-gate": lambda made, n, e: mixed(gated(made, unit(n), unit(e)), unit(n), unit(e)),
    "tanh-gate": lambda made, n, e: mixed(gated(made, n, e), made.word(n).tanh(), made.image(e).tanh()),
    "residual-gate": lambda made, n, e: n + gated(made, n, e) * e,
    "concat": lambda made, n, e: F.linear(n, made.both.weight[:, :56]) + F.linear(e, made.both.weight[:, 56:]),
    "sum": lambda made, n, e: n + e,
    "none": lambda made, n, e: n,
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_fusions_are_their_definitions(name: str) -> None:
    made, hidden, pooled = make("fusion", name, DIFFERENT), draw(3, 56), draw(3, 40, seed=1)
    late = pooled @ made.late.weight.T if name != "none" else pooled
    torch.testing.assert_close(made.project(pooled), late)
    torch.testing.assert_close(made(hidden, pooled), DEFINITIONS[name](made, hidden, late))


def test_cross_attention_reads_the_tokens_that_are_seen() -> None:
    made = make("fusion", "cross-attention", DIFFERENT, heads=2, head_width=8)
    hidden, tokens = draw(3, 56), draw(3, 16, 24, seed=1)
    mask = torch.rand(3, 16, generator=torch.Generator().manual_seed(2)) > 0.4
    out = made(hidden, None, tokens=tokens, mask=mask)
    for row in range(3):
        seen = F.layer_norm(tokens[row][mask[row]], (24,))
        query = (made.query.weight @ F.layer_norm(hidden[row], (56,))).reshape(2, 8)
        key, value = (made.key_value.weight @ seen.T).reshape(2, 2, 8, -1)
        share = (torch.einsum("hd,hdn->hn", query, key) / 8**0.5).softmax(-1)
        read = torch.einsum("hn,hdn->hd", share, value).flatten()
        torch.testing.assert_close(out[row], hidden[row] + made.out.weight @ read)
    every = made(hidden, None, tokens=tokens, mask=None)
    torch.testing.assert_close(made(hidden, draw(3, 40), tokens=tokens, mask=torch.ones_like(mask)), every)


@pytest.mark.parametrize("name", FUSIONS)
def test_an_encoder_without_a_pooled_vector_breaks_no_card(name: str) -> None:
    said = card("fusion", name, (replace(DIFFERENT[0], pooled_width=0), DIFFERENT[1]))
    assert said.pooled == (name not in ("cross-attention", "whitened", "none"))


@pytest.mark.parametrize("choice", [{"connector": n} for n in TINY] + [{"fusion": n} for n in FUSIONS if n != "none"])
def test_every_one_is_trained_saved_and_loaded_in_a_model(
    choice: dict[str, str], workspace: Path, tmp_path: Path
) -> None:
    model = n2kit.build("qwen:tiny", "siglip:tiny", **{"connector": "linear:tiny"} | choice).train()  # type: ignore[arg-type]
    items = [{"image": f"noto_{n}.png", "title": f"thing {n}"} for n in range(1, 5)]
    out = model(batch_of(model, items, workspace / "images"))
    model.loss(out.views, out.present).loss.backward()
    part = getattr(model, next(iter(choice)))
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in part.parameters())
    vectors = model.encode(items, images=workspace / "images")
    model.save(tmp_path / "bundle")
    again = bundle.load(tmp_path / "bundle").encode(items, images=workspace / "images")
    np.testing.assert_array_equal(again, vectors)


def batch_of(model: n2kit.Model, items: list[dict[str, str]], images: Path) -> Any:
    from n2kit.inputs.reader import Reader

    wanted = [n2kit.Item(str(n), **item) for n, item in enumerate(items)]
    made, _ = Reader(model.prompt_builder, model.vision, images)(wanted)
    return made
