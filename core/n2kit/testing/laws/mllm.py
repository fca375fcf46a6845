"""Laws of multimodal LLMs: their LLM and their tower keep the laws of those kinds, and the three fit together."""

from __future__ import annotations

from n2kit.builder import card_of
from n2kit.contract.kinds import Kind
from n2kit.plugins.catalogue import check_card
from n2kit.testing.laws import law, laws_of
from n2kit.testing.laws.compare import same_state
from n2kit.testing.under_test import MLLMUnderTest, folder

# These build a whole model from a spec of kind llm or vision, which an mllm is not.
SKIPPED = {
    "a_frozen_text_space_is_kept",
    "joins_a_model",
    "has_a_tiny_preset",
    "card_is_what_is_measured",
    "parameters_are_counted_exactly",
    "the_card_function_agrees",
}


@law("mllm")
def the_card_is_what_is_measured(under_test: MLLMUnderTest) -> None:
    """The card that the plan reads equals the one measured on the three parts."""
    check_card(str(under_test), under_test.component.card(), card_of(under_test.part))


@law("mllm")
def its_llm_and_its_tower_keep_their_laws(under_test: MLLMUnderTest) -> None:
    """Each on its own is a language model and a vision encoder as any other, with the capabilities that are declared."""
    kinds: tuple[Kind, Kind] = ("llm", "vision")
    for side, kind in zip(under_test.sides, kinds, strict=True):
        for entry in laws_of(kind):
            held = entry.capability is None or entry.capability in under_test.spec.capabilities
            if held and entry.name not in SKIPPED:
                try:
                    entry.check(side)
                except AssertionError as broken:
                    raise AssertionError(f"{kind}, {entry.name}: {broken}") from broken


@law("mllm")
def its_connector_feeds_its_llm(under_test: MLLMUnderTest) -> None:
    """The tower's tokens become [I, Q, De], and the connector loads bit-equal."""
    joined = under_test.part
    seen = joined.vision(*under_test.sides[1].inputs(2))
    out = joined.connector(seen.tokens, seen.mask)
    want = (2, joined.connector.tokens, joined.llm.card.input_width)
    assert tuple(out.shape) == want, f"the connector gives {list(out.shape)}, not {list(want)}"
    with folder() as where:
        joined.connector.save(where)
        same_state(joined.connector.state_dict(), type(joined.connector).load(where).state_dict())


@law("mllm")
def joins_a_model(under_test: MLLMUnderTest) -> None:
    """It plans, builds, gets gradients under mICL, and loads again from its bundle."""
    import torch

    from n2kit.builder import build
    from n2kit.bundle.io import load
    from n2kit.data.items import Item
    from n2kit.modeling.batch import collate
    from n2kit.testing.laws.compare import equal

    settings = {"head.width": 8, "llm.tune": "full", "prompt.body_tokens": 200}
    model = build(mllm=under_test.component.reference, variant="micl", settings=settings).train()
    rows = [model.prompt_builder(Item(str(n), title=f"thing {n}" * (n + 1)), image=True) for n in range(4)]
    batch = collate(rows, range(4))
    size = model.vision.card.image_size  # type: ignore[union-attr]
    batch.pixels = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    out = model(batch)
    loss = model.loss(out.views, out.present).loss
    loss.backward()
    assert loss.isfinite(), f"the loss of a step is {loss.item()}"
    with folder() as where, torch.no_grad():
        model.save(where / "bundle")
        want = model.eval()(batch).views["multimodal"]
        equal([want], [load(where / "bundle")(batch).views["multimodal"]], "the loaded bundle")
