"""Laws of every kind that has a part: cards, gradients, freezing, saving."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from n2kit.contract.cards import VisionCard
from n2kit.contract.kinds import BACKBONES
from n2kit.errors import Mismatch, N2kitError
from n2kit.plugins.catalogue import check_card
from n2kit.testing.laws import law
from n2kit.testing.laws.compare import close, equal, same_state
from n2kit.testing.process_state import changed, lasting_state, passing_state
from n2kit.testing.under_test import (
    DIFFERENT,
    PARTNERS,
    ComponentUnderTest,
    JointUnderTest,
    extras_for,
    folder,
    tensors,
)

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle")


@law("vision", "llm", "mllm")
def has_a_tiny_preset(under_test: ComponentUnderTest) -> None:
    """There is a preset `tiny…` of random weights: the real architecture, offline, in seconds."""
    tiny = [name for name, preset in under_test.spec.presets.items() if name.startswith("tiny")]
    assert tiny, f"{under_test} has presets {sorted(under_test.spec.presets)} and none called tiny"
    downloads = [name for name in tiny if under_test.spec.presets[name].weights != "random"]
    assert not downloads, f"{downloads[0]} takes weights from {under_test.spec.presets[downloads[0]].weights}"


@law("vision", "llm")
def card_is_what_is_measured(under_test: ComponentUnderTest) -> None:
    """The card that the plan reads equals the one measured on the loaded part."""
    check_card(str(under_test), under_test.component.card(), under_test.part.card)


@law("vision", "llm")
def the_card_function_agrees(under_test: ComponentUnderTest) -> None:
    """The spec's `card`, for the options of a random preset, equals the card that is measured (its parameters may be 0)."""
    component = under_test.component
    if under_test.spec.card is None or component.weights.scheme != "random":
        return
    said = component.load(under_test.spec.card)(under_test.config, lambda: None)
    measured = under_test.part.card
    check_card(str(under_test), said, measured if said.parameters else replace(measured, parameters=0))


@law("vision", "llm", "connector", "fusion")
def parameters_are_counted_exactly(under_test: ComponentUnderTest) -> None:
    """The card's `parameters` is the part's number of parameters."""
    card = under_test.part.card if under_test.kind in BACKBONES else under_test.card()  # type: ignore[attr-defined]
    counted = sum(p.numel() for p in under_test.part.parameters())
    assert card.parameters == counted, f"the card says {card.parameters} parameters, the part has {counted}"


@law("vision", "llm", "connector", "fusion", "loss")
def same_input_same_output(under_test: ComponentUnderTest) -> None:
    """In eval mode, the same input gives bit-equal output, also on a second part made from the same seed."""
    with torch.no_grad():
        first, second = under_test.outputs(under_test.part), under_test.outputs(under_test.part)
        equal(first, second, "a second call")
        equal(first, under_test.outputs(under_test.new()), "a second part made alike")


@law("vision", "llm", "connector", "fusion")
def a_batch_row_equals_a_single_row(under_test: ComponentUnderTest) -> None:
    """The output of a row does not depend on the others of its batch."""
    with torch.no_grad():
        together, alone = under_test.outputs(under_test.part), under_test.outputs(under_test.part, rows=1)
    close([t[:1] for t in together], alone, "a row in a batch, and the same row alone")


@law("connector", "fusion", "loss")
def every_parameter_gets_a_gradient(under_test: ComponentUnderTest) -> None:
    """A new part is trained: each of its parameters gets a finite gradient."""
    part = under_test.new().train()
    if next(part.parameters(), None) is None:
        return
    _backward(under_test, part)
    trained = {name: p for name, p in part.named_parameters() if p.requires_grad}
    lacking = [name for name, p in trained.items() if p.grad is None or not p.grad.isfinite().all()]
    assert not lacking, f"no finite gradient in {', '.join(lacking)}"


@law("vision", "llm")
def a_backbone_can_be_trained(under_test: ComponentUnderTest) -> None:
    """Gradients are finite, and most parameters get one (heads that are not used may stay behind)."""
    part = under_test.new().train()
    _backward(under_test, part)
    sizes = {name: p.numel() for name, p in part.named_parameters() if p.requires_grad}
    got = {n for n, p in part.named_parameters() if p.grad is not None}
    wild = [n for n, p in part.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not wild, f"gradients that are not finite: {', '.join(wild)}"
    share = sum(sizes[n] for n in sizes if n in got) / max(1, sum(sizes.values()))
    assert share > 0.5, f"only {share:.0%} of the parameters get a gradient; without: {sorted(set(sizes) - got)[:5]}"


@law("connector", "fusion")
def other_widths_fit_or_are_refused(under_test: JointUnderTest) -> None:
    """Backbones of other widths work, or the card function raises Mismatch with a hint before any weight exists."""
    other = type(under_test)(under_test.component)
    other.cards = DIFFERENT
    try:
        card = other.card()
    except Mismatch as refusal:
        if not refusal.hint:
            raise AssertionError(f"the refusal {refusal.message!r} says no way out") from None
        return
    assert card.parameters == sum(p.numel() for p in other.part.parameters()), "parameters are miscounted there"
    with torch.no_grad():
        (out,) = other.outputs(other.part)
    width = DIFFERENT[1].input_width if under_test.kind == "connector" else DIFFERENT[1].output_width
    width = getattr(card, "output_width", None) or width
    assert out.shape[-1] == width, f"forward gives {list(out.shape)}, and its last width should be {width}"
    assert out.isfinite().all(), "what it gives there is not finite"


@law("vision", "llm", "connector", "fusion")
def frozen_stays_bit_equal(under_test: ComponentUnderTest) -> None:
    """After `freeze()`, neither `.train()` nor forward passes change a weight, a statistic or an output."""
    part = under_test.new().freeze()
    before = {k: v.clone() for k, v in part.state_dict().items()}
    with torch.no_grad():
        want = under_test.outputs(part)
        part.train()
        for _ in range(2):
            equal(want, under_test.outputs(part), "a frozen part after .train()")
    same_state(before, part.state_dict())
    assert not any(p.requires_grad for p in part.parameters()), "a frozen part has trainable parameters"


@law("vision", "llm", "connector", "fusion", "loss")
def saved_and_loaded_is_bit_equal(under_test: ComponentUnderTest) -> None:
    """`load` gives back what `save` wrote: weights, outputs, card; as safetensors, without pickles."""
    part = under_test.part
    with folder() as where:
        part.save(where)
        pickles = [f.name for f in where.rglob("*") if f.suffix in PICKLES]
        assert not pickles, f"save wrote {pickles[0]}: weights belong into safetensors"
        again = type(part).load(where).eval()
    same_state(part.state_dict(), again.state_dict())
    with torch.no_grad():
        equal(under_test.outputs(part), under_test.outputs(again), "the loaded part")
    if under_test.kind in ("vision", "llm"):
        check_card(f"{under_test}, loaded", part.card, again.card)


@law("vision", "llm", "connector", "fusion", capability="bfloat16")
def works_in_bfloat16(under_test: ComponentUnderTest) -> None:
    """In bfloat16 the outputs are finite, and near to those in float32."""
    part = copy.deepcopy(under_test.part).bfloat16()
    with torch.no_grad():
        inputs = [i.bfloat16() if isinstance(i, Tensor) else i for i in under_test.inputs()]
        options = {
            k: v.bfloat16() if isinstance(v, Tensor) and v.is_floating_point() else v
            for k, v in under_test.options().items()
        }
        low, high = tensors(part(*inputs, **options)), under_test.outputs(under_test.part)
    for a, b in zip(low, high, strict=True):
        assert a.isfinite().all(), "outputs in bfloat16 are not finite"
        if b.is_floating_point():
            off = (a.float() - b.float()).pow(2).mean().sqrt() / b.float().pow(2).mean().sqrt().clamp_min(1e-6)
            assert off < 0.1, f"outputs in bfloat16 are {off:.0%} away from those in float32"


@law("vision", "llm", capability="blocks")
def blocks_run_in_their_order(under_test: ComponentUnderTest) -> None:
    """`blocks()` are modules of the part, run one after the other, and hold most of what is not an embedding."""
    part, ran = under_test.part, []
    blocks = list(part.blocks())
    assert blocks, "blocks() is empty"
    hooks = [b.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, b in enumerate(blocks)]
    with torch.no_grad():
        under_test.outputs(part)
    for hook in hooks:
        hook.remove()
    assert ran == sorted(ran), f"blocks ran in the order {ran}"
    assert set(ran) == set(range(len(blocks))), f"of {len(blocks)} blocks, {sorted(set(ran))} ran"
    inside = sum(p.numel() for block in blocks for p in block.parameters())
    table = part.card.vocab * part.card.input_width if under_test.kind == "llm" else 0
    share = inside / max(1, sum(p.numel() for p in part.parameters()) - table)
    assert share > 0.3, f"blocks() hold {share:.0%} of the parameters outside the embedding table"


@law("llm", "vision", "connector", "fusion", "loss")
def joins_a_model(under_test: ComponentUnderTest) -> None:
    """Joined with n2kit's own parts it plans, builds, gets gradients, and loads again from its bundle."""
    from n2kit.builder import build
    from n2kit.bundle.io import load
    from n2kit.data.items import Item
    from n2kit.modeling.batch import collate

    choice: dict[str, Any] = dict(PARTNERS)
    choice[under_test.kind] = under_test.component.reference
    settings: dict[str, Any] = {
        "head.width": 8,
        "llm.tune": "full",
        "prompt.template": "compact",
        "prompt.body_tokens": 400,
        **under_test.spec.partners,
    }
    card = under_test.part.card if under_test.kind in ("vision", "llm") else None
    choice["variant"] = "late_early_fusion"
    if under_test.kind == "fusion" and under_test.spec.name == "none":
        choice["variant"] = "basic"
    if isinstance(card, VisionCard) and not card.pooled_width:
        choice |= {"variant": "basic", "fusion": None}
    try:
        model = build(settings={name: value for name, value in (choice | settings).items() if value is not None})
    except N2kitError as refusal:
        raise AssertionError(f"it does not build: {refusal.message}") from None
    model.train()
    rows = [model.prompt_builder(Item(str(n), title=f"thing {n}" * (n + 1)), image=True) for n in range(4)]
    batch = collate(rows, range(4))
    size = model.vision.card.image_size  # type: ignore[union-attr]
    batch.pixels = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    out = model(batch)
    loss = model.loss(out.views, out.present, None, **extras_for(model.loss, 2)).loss
    loss.backward()
    assert loss.isfinite(), f"the loss of a step is {loss.item()}"
    wild = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    assert not wild, f"gradients that are not finite: {', '.join(wild)}"
    with folder() as where, torch.no_grad():
        model.save(where / "bundle")
        again = load(where / "bundle")
        want = model.eval()(batch).views["multimodal"]
        equal([want], [again(batch).views["multimodal"]], "the loaded bundle")


def _backward(under_test: ComponentUnderTest, part: Any) -> None:
    out = [t for t in under_test.outputs(part, learning=True) if t.is_floating_point() and t.requires_grad]
    assert out, "no output depends on a trainable parameter"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sum((t * torch.randn_like(t)).sum() for t in out).backward()  # type: ignore[union-attr]


@law("vision", "llm", "connector", "fusion", "loss")
def the_process_stays_as_it_was(under_test: ComponentUnderTest) -> None:
    """Neither its import nor a creation changes what is everybody's: torch's defaults, random states, signals, folder, environment."""
    assert not under_test.changed_by_import, f"its import changes {', '.join(under_test.changed_by_import)}"
    under_test.new()  # whatever its libraries do at the first use is done
    kept, passing = lasting_state(), passing_state()

    def assert_same(what: str) -> None:
        wrong = [*changed(kept, lasting_state()), *changed(passing, passing_state())]
        assert not wrong, f"{what} changes {', '.join(wrong)}"

    part = under_test.new()
    assert_same("its creation")
    state = torch.get_rng_state()
    with torch.no_grad():
        under_test.outputs(part)
    assert_same("a forward pass")
    assert torch.get_rng_state().equal(state), "a forward pass in eval mode draws random numbers"
