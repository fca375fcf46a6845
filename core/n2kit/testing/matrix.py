"""Any × any, tried: every vision encoder × LLM × connector at its tiny, with fusions and losses spread over them.

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

from n2kit.assemble import join, loss_of
from n2kit.data.batch import Batch, collate
from n2kit.data.items import Item
from n2kit.manager import OWN
from n2kit.model import Model, Parts
from n2kit.parts import Origin, VisionEncoder, VisionOut
from n2kit.plan import Plan, make_plan
from n2kit.recipe import Recipe
from n2kit.registry import registry
from n2kit.testing.laws.compare import TOLERANCE, distance
from n2kit.testing.references import references
from n2kit.testing.subjects import facts_of

KINDS = ("vision", "llm", "connector", "fusion", "loss")
ITEMS = [  # a and c, b and d are partners: less alike than others, so that no loss is content
    Item("a", image="0", title="oak chair"),
    Item("b", image="1", title="oak chair"),  # another picture
    Item("c", title="no picture"),
    Item("d", image="0", title="oak chair, with a longer title"),  # another ending
]


@dataclass(frozen=True)
class Cell:
    """One combination."""

    vision: str
    llm: str
    connector: str
    fusion: str
    loss: str

    def recipe(self) -> Recipe:
        """mICL where the LLM can; tuned throughout, so that a gradient must arrive everywhere."""
        causal = _component("llm", self.llm).card().causal
        late = self.fusion != "none"
        variant = {(1, 1): "notellm2", (1, 0): "micl", (0, 1): "late_early_fusion", (0, 0): "basic"}[causal, late]
        choices: dict[str, Any] = {kind: {"name": getattr(self, kind)} for kind in KINDS}
        choices["llm"]["tune"] = choices["vision"]["tune"] = "full"
        return Recipe.model_validate(
            choices | {"variant": variant, "head": {"width": 8}, "prompt": {"template": "compact", "body_tokens": 64}}
        )


@dataclass
class Report:
    """What came of a matrix: how many combinations hold, which are refused and why, which fail."""

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
        return "\n".join(lines + [f"FAILED {cell}: {reason}" for cell, reason in self.failed.items()])


def cells(names: dict[str, list[str]]) -> Iterator[Cell]:
    """All of vision × LLM × connector; fusion and loss so that every two values of any two kinds meet."""
    fusions, losses = names["fusion"], names["loss"]
    pairs = list(itertools.product(fusions, losses))
    for v, vision in enumerate(names["vision"]):
        for n, llm in enumerate(names["llm"]):
            for c, connector in enumerate(names["connector"]):
                # Steps without a common divisor with the number of pairs walk through all of them.
                fusion, loss = pairs[(v * 5 + n * 11 + c * 13) % len(pairs)]
                yield Cell(vision, llm, connector, fusion, loss)


def cover(tried: Iterable[Cell]) -> list[Cell]:
    """Of each vision encoder × LLM one cell that the plan accepts, so that all values meet that meet in any such cell."""
    met: set[frozenset[tuple[str, str]]] = set()
    chosen = []
    for _, turn in itertools.groupby(tried, lambda cell: (cell.vision, cell.llm)):
        newest_first = sorted(turn, key=lambda cell: len(_meetings(cell) - met), reverse=True)
        if (cell := next(filter(accepted, newest_first), None)) is not None:
            chosen.append(cell)
            met |= _meetings(cell)
    return chosen


def accepted(cell: Cell) -> bool:
    """Whether the plan finds nothing against it."""
    return not make_plan(cell.recipe()).refusals


def _meetings(cell: Cell) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(two) for two in itertools.combinations(vars(cell).items(), 2)}


def uncovered(names: dict[str, list[str]], tried: Iterable[Cell]) -> list[tuple[str, str]]:
    """Values of two kinds that no combination brings together."""
    met = {two for cell in tried for two in _meetings(cell)}
    return [
        (f"{a} {x}", f"{b} {y}")
        for a, b in itertools.combinations(KINDS, 2)
        for x, y in itertools.product(names[a], names[b])
        if frozenset({(a, x), (b, y)}) not in met
    ]


def in_tree(distribution: str = OWN) -> dict[str, list[str]]:
    """The components of a distribution by kind, at their tiny."""
    return {kind: references(kind, distribution) for kind in KINDS}  # type: ignore[arg-type]


def run(tried: Sequence[Cell]) -> Report:
    """Try these cells; one that fails stops no other.

    Of each vision encoder × LLM, the first cell that the plan accepts runs from pixels, the encoder tuned. The others start at
    the encoder's output, computed once, and their gradient must arrive there.
    """
    from_pixels: set[tuple[str, str]] = set()
    sizes = {kind: len({getattr(cell, kind) for cell in tried}) for kind in KINDS}
    start, report = time.perf_counter(), Report(sizes=sizes)
    for cell in tried:
        try:
            plan = make_plan(cell.recipe())
            if plan.refusals:
                report.refused[plan.refusals[0].message] += 1
                continue
            pair = (cell.vision, cell.llm)
            seen = _seen(cell.vision) if pair in from_pixels else None
            check(_joined(cell, plan, seen), seen)
            from_pixels.add(pair)
            report.passed += 1
        except Exception as problem:
            reason = str(problem) if isinstance(problem, AssertionError) else f"{type(problem).__name__}: {problem}"
            report.failed["+".join(vars(cell).values())] = (reason.splitlines() or [""])[0]
    report.seconds = time.perf_counter() - start
    return report


def check(model: Model, seen: VisionOut | None = None) -> None:
    """Hold one joined model to the laws above; `seen` is its encoder's output for the two pictures. Raises AssertionError."""
    leaves = None if seen is None else seen.map(lambda t: t.clone().requires_grad_(t.is_floating_point()))
    batch = _batch(model, ITEMS, leaves)
    with model.reading_all_at_once() as states:
        out = model(batch)
    loss = model.loss(out.views, out.present, None, **facts_of(model.loss, len(ITEMS) // 2)).loss
    assert loss.isfinite(), f"the loss is {loss.item()}"
    if not loss.item():  # a margin that is kept has no gradient: then the vectors' own
        loss = loss + sum(view.sum() for view in out.views.values())
    loss.backward()
    _gradients_everywhere(model, leaves)
    vectors = out.views["multimodal"].detach()
    assert distance(vectors[0], vectors[1]) > 1e-6, "the image does not matter"
    with torch.no_grad():
        alone = model(_batch(model, ITEMS[:1], leaves))
    assert distance(alone.views["multimodal"][0], vectors[0]) <= TOLERANCE, (
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
        trained.append(("words", list(model.words.parameters())))  # of which only mICL's prompt has one
    if leaves is not None:
        trained.append(("vision", [t for t in leaves if t is not None and t.requires_grad]))
    for name, tensors in trained:
        grads = [t.grad for t in tensors if t.grad is not None]
        assert all(g.isfinite().all() for g in grads), f"a gradient in {name} is not finite"
        arrived = any(g.abs().sum() > 0 or name == "loss" for g in grads)  # a temperature's may be 0 at the beginning
        assert arrived or not tensors, f"no gradient in {name}"


def _joined(cell: Cell, plan: Plan, seen: VisionOut | None) -> Model:
    """The model of a cell; backbones are shared by all cells, new parts are new."""
    chosen = plan.components
    llm, vision = _backbone("llm", cell.llm), _backbone("vision", cell.vision)
    connector = chosen["connector"].cls()(chosen["connector"].config(), vision=vision.card, llm=llm.card)
    model = join(plan, Parts(llm, loss_of(chosen["loss"]), vision, connector)).eval()
    model.calibrate(seen)
    model.zero_grad()
    return model


@functools.cache
def _component(kind: str, reference: str) -> Any:
    return registry().resolve(kind, reference)  # type: ignore[arg-type]


@functools.cache
def _backbone(kind: str, reference: str) -> Any:
    component = _component(kind, reference)
    return component.cls().create(Origin(component.config(), component.weights.locate())).eval()


@functools.cache
def _seen(reference: str) -> VisionOut:
    """An encoder's output for both pictures, standardised over the two: at random, some hardly tell pictures apart."""
    vision: VisionEncoder = _backbone("vision", reference)
    with torch.no_grad():
        out: VisionOut = vision(_pictures(vision.card.image_size))
        return out.map(lambda t: (t - t.mean(0)) / t.std() if t.is_floating_point() else t)


@functools.cache
def _pictures(size: int) -> Tensor:
    """Two pictures [2, 3, H, W] of large fields, so that even a random encoder tells them apart."""
    fields = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(fields, size=size)


def _batch(model: Model, items: list[Item], seen: VisionOut | None) -> Batch:
    batch = collate(
        [model.prompter(i, image=bool(i.image)) for i in items], [n for n, i in enumerate(items) if i.image]
    )
    rows = torch.tensor([int(i.image) for i in items if i.image])
    assert model.vision is not None
    if seen is None:
        batch.pixels = _pictures(model.vision.card.image_size)[rows]
    else:
        batch.seen = seen.map(lambda t: t[rows])
    return batch


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = run(list(cells(in_tree())))
    print(json.dumps(vars(result), default=str) if "--json" in sys.argv else result)
    sys.exit(1 if result.failed else 0)
