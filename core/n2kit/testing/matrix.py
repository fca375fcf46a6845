"""Any × any: every vision encoder × LLM × connector at its tiny preset, with fusions and losses spread over them.

    python -m n2kit.testing.matrix          # prints how many work, and why others are refused

Of each combination: a forward and a backward pass, all values finite, a gradient in every part, a batch row equal to the row
alone, the image matters, and no state of a causal LLM sees a later token. Or the plan refuses it, and says why.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from n2kit.builder import join, loss_of
from n2kit.contract.interfaces import LoadSpec, VisionEncoder, VisionOut
from n2kit.data.items import Item
from n2kit.modeling.batch import Batch, collate
from n2kit.modeling.model import Model, Parts
from n2kit.planning.plan import Plan
from n2kit.planning.planner import make_plan
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.manager import OWN
from n2kit.recipe.settings import Recipe
from n2kit.testing.laws.compare import TOLERANCE, distance
from n2kit.testing.references import references
from n2kit.testing.under_test import extras_for

KINDS = ("vision", "llm", "connector", "fusion", "loss")
ITEMS = [  # a and c, b and d are partners: less alike than others, so that no loss is content
    Item("a", image="0", title="oak chair"),
    Item("b", image="1", title="oak chair"),  # another picture
    Item("c", title="no picture"),
    Item("d", image="0", title="oak chair, with a longer title"),  # another ending
]


@dataclass(frozen=True)
class Combination:
    """One component of each kind, to be joined."""

    vision: str
    llm: str
    connector: str
    fusion: str
    loss: str

    def recipe(self) -> Recipe:
        """Write the recipe: mICL where the LLM is causal; all is tuned, so that a gradient must arrive everywhere."""
        causal = _component("llm", self.llm).card().causal
        late = self.fusion != "none"
        variant = {(1, 1): "notellm2", (1, 0): "micl", (0, 1): "late_early_fusion", (0, 0): "basic"}[causal, late]
        choices: dict[str, Any] = {kind: {"name": getattr(self, kind)} for kind in KINDS}
        choices["llm"]["tune"] = choices["vision"]["tune"] = "full"
        return Recipe.model_validate(
            choices | {"variant": variant, "head": {"width": 8}, "prompt": {"template": "compact", "body_tokens": 64}}
        )


@dataclass
class MatrixSummary:
    """The results of a matrix: the number of combinations that work, and the reasons of refusals and failures."""

    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        sizes = " × ".join(f"{count} {kind}" for kind, count in self.sizes.items())
        lines = [f"{self.passed} combinations hold, {sum(self.refused.values())} are refused, {len(self.failed)} fail"]
        lines += [f"({sizes}; {self.seconds:.0f} s)"]
        lines += [f"refused {count}: {reason}" for reason, count in self.refused.most_common()]
        return "\n".join(lines + [f"FAILED {combination}: {reason}" for combination, reason in self.failed.items()])


def combinations(names: dict[str, list[str]]) -> Iterator[Combination]:
    """Yield all of vision × LLM × connector, with fusion and loss so that every two values of any two kinds meet."""
    fusions, losses = names["fusion"], names["loss"]
    pairs = list(itertools.product(fusions, losses))
    for v, vision in enumerate(names["vision"]):
        for n, llm in enumerate(names["llm"]):
            for c, connector in enumerate(names["connector"]):
                # Steps without a common divisor with the number of pairs walk through all of them.
                fusion, loss = pairs[(v * 5 + n * 11 + c * 13) % len(pairs)]
                yield Combination(vision, llm, connector, fusion, loss)


def cover(tried: Iterable[Combination]) -> list[Combination]:
    """Choose one accepted combination of each vision encoder × LLM, so that all values meet that meet in any accepted one."""
    met: set[frozenset[tuple[str, str]]] = set()
    chosen = []
    for _, group in itertools.groupby(tried, lambda combination: (combination.vision, combination.llm)):
        newest_first = sorted(group, key=lambda combination: len(_meetings(combination) - met), reverse=True)
        if (combination := next(filter(is_accepted, newest_first), None)) is not None:
            chosen.append(combination)
            met |= _meetings(combination)
    return chosen


def is_accepted(combination: Combination) -> bool:
    """Tell whether the plan finds nothing against a combination."""
    return not make_plan(combination.recipe()).refusals


def _meetings(combination: Combination) -> set[frozenset[tuple[str, str]]]:
    """List the values of any two kinds that a combination brings together."""
    return {frozenset(two) for two in itertools.combinations(vars(combination).items(), 2)}


def uncovered(names: dict[str, list[str]], tried: Iterable[Combination]) -> list[tuple[str, str]]:
    """List the values of two kinds that no combination brings together."""
    met = {two for combination in tried for two in _meetings(combination)}
    return [
        (f"{a} {x}", f"{b} {y}")
        for a, b in itertools.combinations(KINDS, 2)
        for x, y in itertools.product(names[a], names[b])
        if frozenset({(a, x), (b, y)}) not in met
    ]


def components_of(distribution: str = OWN) -> dict[str, list[str]]:
    """List the components of a distribution by kind, at their tiny presets."""
    return {kind: references(kind, distribution) for kind in KINDS}  # type: ignore[arg-type]


def run(tried: Sequence[Combination]) -> MatrixSummary:
    """Try these combinations; one that fails stops no other.

    Of each vision encoder × LLM, the first combination that the plan accepts runs from pixels, the encoder tuned. The others start at
    the encoder's output, computed once, and their gradient must arrive there.
    """
    from_pixels: set[tuple[str, str]] = set()
    sizes = {kind: len({getattr(combination, kind) for combination in tried}) for kind in KINDS}
    start, summary = time.perf_counter(), MatrixSummary(sizes=sizes)
    for combination in tried:
        try:
            plan = make_plan(combination.recipe())
            if plan.refusals:
                summary.refused[plan.refusals[0].message] += 1
                continue
            pair = (combination.vision, combination.llm)
            seen = _seen(combination.vision) if pair in from_pixels else None
            assert_model_works(_joined(combination, plan, seen), seen)
            from_pixels.add(pair)
            summary.passed += 1
        except Exception as problem:
            reason = str(problem) if isinstance(problem, AssertionError) else f"{type(problem).__name__}: {problem}"
            summary.failed["+".join(vars(combination).values())] = (reason.splitlines() or [""])[0]
    summary.seconds = time.perf_counter() - start
    return summary


def assert_model_works(model: Model, seen: VisionOut | None = None) -> None:
    """Check one joined model by the laws above; `seen` is its encoder's output for the two images.

    Raises:
        AssertionError: it breaks one of them.
    """
    leaves = None if seen is None else seen.map(lambda t: t.clone().requires_grad_(t.is_floating_point()))
    batch = _batch(model, ITEMS, leaves)
    with model.capture_hidden_states() as states:
        out = model(batch)
    loss = model.loss(out.views, out.present, None, **extras_for(model.loss, len(ITEMS) // 2)).loss
    assert loss.isfinite(), f"the loss is {loss.item()}"
    if not loss.item():  # a margin that is kept has no gradient: then the vectors' own
        loss = loss + sum(view.sum() for view in out.views.values())
    loss.backward()
    _gradients_everywhere(model, leaves)
    with torch.no_grad():
        alone, other = (model(_batch(model, [item], leaves)).views["multimodal"] for item in ITEMS[:2])
    # The same operations on the same text: with random weights an image moves some vectors by a rounding error or two only.
    assert not alone.equal(other), "the image does not matter"
    assert distance(alone[0], out.views["multimodal"][0].detach()) <= TOLERANCE, (
        "a row in a batch differs from the row alone"
    )
    if model.llm.card.causal:
        same = int((batch.ids[0] == batch.ids[3]).long().cumprod(0).sum())  # rows 0 and 3 begin alike
        off = distance(states[0][0, :same].detach(), states[0][3, :same].detach())
        assert same > 0, "the two rows share no beginning"
        assert off <= TOLERANCE, f"a later token changes earlier states by {off:.1e}"


def _gradients_everywhere(model: Model, leaves: VisionOut | None) -> None:
    trained: list[tuple[str, list[Tensor]]] = [
        (name, list(part.parameters())) for name, part in model.parts.items() if name != "vision" or leaves is None
    ]
    trained.append(("head", list(model.head.parameters())))
    if model.variant.micl:
        trained.append(("words", list(model.special_tokens.parameters())))  # of which only mICL's prompt has one
    if leaves is not None:
        trained.append(("vision", [t for t in leaves if t is not None and t.requires_grad]))
    for name, tensors in trained:
        grads = [t.grad for t in tensors if t.grad is not None]
        assert all(g.isfinite().all() for g in grads), f"a gradient in {name} is not finite"
        arrived = any(g.abs().sum() > 0 or name == "loss" for g in grads)  # a temperature's may be 0 at the beginning
        assert arrived or not tensors, f"no gradient in {name}"


def _joined(combination: Combination, plan: Plan, seen: VisionOut | None) -> Model:
    """Build the model of a combination; backbones are shared by all combinations, other parts are new."""
    chosen = plan.components
    llm, vision = _backbone("llm", combination.llm), _backbone("vision", combination.vision)
    connector = chosen["connector"].make(vision=vision.card, llm=llm.card)
    model = join(plan, Parts(llm, loss_of(chosen["loss"]), vision, connector)).eval()
    model.calibrate(seen)
    model.zero_grad()
    return model


@functools.cache
def _component(kind: str, reference: str) -> Any:
    return default_catalogue().resolve(kind, reference)  # type: ignore[arg-type]


@functools.cache
def _backbone(kind: str, reference: str) -> Any:
    component = _component(kind, reference)
    return component.create(LoadSpec(component.config(), component.weights.locate())).eval()


@functools.cache
def _seen(reference: str) -> VisionOut:
    """Encode both images, standardised over the two: with random weights, some encoders hardly tell images apart."""
    vision: VisionEncoder = _backbone("vision", reference)
    with torch.no_grad():
        out: VisionOut = vision(_images(vision.card.image_size))
        return out.map(lambda t: (t - t.mean(0)) / t.std() if t.is_floating_point() else t)


@functools.cache
def _images(size: int) -> Tensor:
    """Draw two images [2, 3, H, W] of large fields, so that even a random encoder tells them apart."""
    fields = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(fields, size=size)


def _batch(model: Model, items: list[Item], seen: VisionOut | None) -> Batch:
    batch = collate(
        [model.prompt_builder(i, image=bool(i.image)) for i in items], [n for n, i in enumerate(items) if i.image]
    )
    rows = torch.tensor([int(i.image) for i in items if i.image])
    assert model.vision is not None
    if seen is None:
        batch.pixels = _images(model.vision.card.image_size)[rows]
    else:
        batch.vision_out = seen.map(lambda t: t[rows])
    return batch


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = run(list(combinations(components_of())))
    print(json.dumps(vars(result), default=str) if "--json" in sys.argv else result)
    sys.exit(1 if result.failed else 0)
