"""Components under test: one component, its part, and inputs for it."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from n2kit.contract.cards import LLMCard, VisionCard
from n2kit.contract.interfaces import DecomposedMLLM, LoadSpec, Loss, Part, VisionOut
from n2kit.contract.kinds import KIND_SPECS, Kind
from n2kit.contract.store import Store
from n2kit.errors import Mismatch, N2kitError
from n2kit.index.in_store import InStore
from n2kit.planning.planner import component_of
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.component import Component
from n2kit.plugins.manager import OWN, load_target
from n2kit.recipe.settings import resolve
from n2kit.testing.process_state import changed, lasting_state

# The cards that connectors and fusions are made for: backbones of one width and some grid, and a pair of four different widths.
SAME = tuple(
    (VisionCard(side * side + 1, 32, 32, 32, 1000, prefix_tokens=1), LLMCard(32, 32, 2, 512, 512, 1000))
    for side in (4, 6, 5)
)
DIFFERENT = (VisionCard(16, 24, 40, 32, 1000), LLMCard(48, 56, 2, 512, 512, 1000))
IMAGES, ROWS, LENGTH = 3, 3, 12
PARTNERS = {
    "llm": "qwen:tiny",
    "vision": "clip:tiny",
    "connector": "mlp",
    "fusion": "gate",
}  # n2kit's own, of any model


class ComponentUnderTest:
    """A component under test. `part` is made once and shared; a law that changes it makes its own with `new()`."""

    def __init__(self, component: Component) -> None:
        self.component, self.kind, self.spec = component, component.kind, component.registered.spec
        before = lasting_state()
        with contextlib.suppress(N2kitError):  # the laws say it
            component.cls()
        self.changed_by_import = changed(before, lasting_state())

    def __str__(self) -> str:
        return f"{self.kind}/{self.component.reference}"

    def beside(self, partners: Mapping[str, Any]) -> Self:
        """Return the component with other partners, over those of its spec; itself where none are given."""
        if not partners:
            return self
        spec = replace(self.spec, partners={**self.spec.partners, **partners})
        return type(self)(replace(self.component, registered=replace(self.component.registered, spec=spec)))

    @property
    def config(self) -> Any:
        return self.component.config()

    @property
    def part(self) -> Any:
        return self._part

    @functools.cached_property
    def _part(self) -> Any:
        return self.new()

    def new(self) -> Any:
        """Make a fresh part in eval mode, the same every time."""
        with seeded():
            made = self.make()
        return made.eval() if isinstance(made, Part) else made

    def make(self) -> Any:
        return self.component.cls().create(LoadSpec(self.config, self.component.weights.locate()))

    def inputs(self, rows: int = ROWS) -> tuple[Any, ...]:
        """Make the inputs of the part's forward for `rows` images or items; the first rows are the same for any number."""
        raise NotImplementedError

    def options(self, rows: int = ROWS) -> dict[str, Any]:
        """Give the part's extra inputs by name."""
        return {}

    def outputs(self, part: Any, rows: int = ROWS, *, learning: bool = False) -> list[Tensor]:
        """Compute all outputs of the part for `inputs`; `learning`: from the part's own embeddings, where it has any."""
        return tensors(part(*self.inputs(rows), **self.options(rows)))

    def perturbed(self) -> Any:
        """Make a part with slightly perturbed parameters: a gate that starts at zero lets nothing through yet."""
        part = self.new()
        with torch.no_grad(), seeded(1):
            for parameter in part.parameters():
                if parameter.requires_grad:
                    parameter += 0.05 * torch.randn_like(parameter)
        return part


class VisionUnderTest(ComponentUnderTest):
    def images(self, count: int = IMAGES) -> list[Image.Image]:
        """Draw images of several sizes, no two the same."""
        noise = torch.Generator().manual_seed(0)
        sizes = [(64, 64), (90, 40), (40, 90), (33, 77)]
        return [
            Image.frombytes("RGB", (w, h), bytes(torch.randint(256, (w * h * 3,), generator=noise).tolist()))
            for w, h in (sizes * count)[:count]
        ]

    def inputs(self, rows: int = IMAGES) -> tuple[Tensor]:
        return (torch.stack([self.part.transform(image) for image in self.images(rows)]),)


class LLMUnderTest(ComponentUnderTest):
    def ids(self, rows: int = ROWS, length: int = LENGTH) -> Tensor:
        """Draw token ids [rows, length], no two rows the same."""
        vocab = self.part.card.vocab
        return torch.randint(vocab, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))[:rows, :length]

    def inputs(self, rows: int = ROWS) -> tuple[Tensor]:
        with torch.no_grad():
            return (self.part.embed(self.ids(rows)),)

    def outputs(self, part: Any, rows: int = ROWS, *, learning: bool = False) -> list[Tensor]:
        x = part.embed(self.ids(rows)) if learning else self.inputs(rows)[0]
        return tensors(part(x, **self.extras(x)))

    def extras(self, x: Tensor, real: int | None = None) -> dict[str, Tensor]:
        """Select the extra inputs of the LLM for x [B, T, De], of which `real` positions are no padding."""
        mask = torch.arange(x.shape[1])[None].expand(len(x), -1) < (x.shape[1] if real is None else real)
        extras: dict[str, Tensor] = self.part.extras(mask)
        return extras

    def options(self, rows: int = ROWS) -> dict[str, Any]:
        return self.extras(self.inputs(rows)[0])


class JointUnderTest(ComponentUnderTest):
    """A connector or a fusion, made for two cards: its partners', or the first of `SAME` that it takes."""

    @functools.cached_property
    def cards(self) -> tuple[VisionCard, LLMCard]:
        if self.spec.partners:
            recipe = resolve({**PARTNERS, **self.spec.partners}).recipe
            vision, llm = (component_of(recipe, kind).card() for kind in ("vision", "llm"))
            assert isinstance(vision, VisionCard)
            assert isinstance(llm, LLMCard)
            return vision, llm
        for cards in SAME:
            with contextlib.suppress(Mismatch):
                self.card(cards)
                return cards
        return SAME[0]

    def make(self) -> Any:
        vision, llm = self.cards
        return self.component.cls()(self.config, vision=vision, llm=llm)

    def card(self, cards: tuple[VisionCard, LLMCard] | None = None) -> Any:
        """Compute the card for two backbones by the spec's card function.

        Raises:
            Mismatch: they do not fit.
        """
        return self.component.load(self.spec.card or "")(self.config, *(cards or self.cards))

    def seen(self, rows: int = IMAGES) -> VisionOut:
        vision = self.cards[0]
        tokens = draw(rows, vision.tokens, vision.token_width, seed=1)
        return VisionOut(tokens, draw(rows, vision.pooled_width, seed=2))


class ConnectorUnderTest(JointUnderTest):
    def inputs(self, rows: int = IMAGES) -> tuple[Tensor]:
        return (self.seen(rows).tokens,)


class FusionUnderTest(JointUnderTest):
    def inputs(self, rows: int = ROWS) -> tuple[Tensor, Tensor | None]:
        return draw(rows, self.cards[1].output_width, seed=3), self.seen(rows).pooled

    def options(self, rows: int = ROWS) -> dict[str, Any]:
        both = torch.ones(rows, dtype=torch.bool)
        known = {"tokens": self.seen(rows).tokens, "mask": None, "has_text": both, "has_image": both}
        return {name: known[name] for name in self.part.extra_inputs}


class LossUnderTest(ComponentUnderTest):
    pairs, width = 6, 32

    def make(self) -> Any:
        return self.component.cls()(self.config)

    def inputs(self, rows: int = 6) -> tuple[Mapping[str, Tensor]]:
        """Draw one view of `rows` pairs whose two sides are somewhat similar, so that no margin is kept yet."""
        left = draw(rows, self.width, seed=4)
        return ({"multimodal": torch.cat([left, left + 2 * draw(rows, self.width, seed=5)])},)

    def options(self, rows: int = 6) -> dict[str, Any]:
        return extras_for(self.part, rows)


class MLLMUnderTest(ComponentUnderTest):
    """A multimodal LLM; `sides` are its LLM and its tower as components under test of their own."""

    @functools.cached_property
    def sides(self) -> tuple[LLMUnderTest, VisionUnderTest]:
        joined: DecomposedMLLM = self.part
        llm, vision = LLMUnderTest(self.component), VisionUnderTest(self.component)
        for side, name in ((llm, "llm"), (vision, "vision")):
            vars(side)["_part"] = getattr(joined, name).eval()
            vars(side)["make"] = lambda name=name: getattr(self.make(), name)
        return llm, vision


class IndexUnderTest(ComponentUnderTest):
    def make(self) -> Any:
        cls = self.component.cls()
        return self._stored(cls) if issubclass(cls, Store) else cls.build(self.vectors().numpy(), self.config)

    def _stored(self, cls: type[Store]) -> InStore:
        """Make a store in a folder that goes when the index does, as an index."""
        vectors, place = (
            self.vectors().numpy(),
            tempfile.TemporaryDirectory(prefix="n2kit-law-", ignore_cleanup_errors=True),
        )
        ids = [f"i{n}" for n in range(len(vectors))]
        store = cls.create(Path(place.name), vectors.shape[1], {}, self.config, replace=False)
        store.insert(ids, vectors, {})
        store.compact()
        index = InStore(store, ids, vectors.shape[1], {}, {})
        weakref.finalize(index, _end, store, place)
        return index

    def vectors(self) -> Tensor:
        """Draw unit vectors: [200, 16]."""
        return torch.nn.functional.normalize(draw(200, 16, seed=6), dim=-1)


def _end(store: Store, place: tempfile.TemporaryDirectory[str]) -> None:
    store.close()
    place.cleanup()


def class_under_test(kind: Kind) -> type[ComponentUnderTest]:
    """Return the class that makes components of a kind ready for the laws."""
    found: type[ComponentUnderTest] = load_target(KIND_SPECS[kind].under_test, owner=OWN)
    return found


@functools.lru_cache(maxsize=4)  # laws of one component follow each other
def component_under_test(kind: Kind, reference: str) -> ComponentUnderTest:
    """Resolve the component that `reference` names, ready for the laws.

    Raises:
        BadInput, Unavailable: as `--llm`, `--vision`, … would.
    """
    return class_under_test(kind)(default_catalogue().resolve(kind, reference))


def extras_for(loss: Loss, pairs: int) -> dict[str, Any]:
    """Give the extra inputs of a loss for so many pairs."""
    known = {
        "grades": torch.linspace(1, 0.5, pairs),
        "log_q": torch.full((2 * pairs,), -3.0),
        "generation": torch.tensor(2.0),
    }
    return {name: known[name] for name in loss.extra_inputs & known.keys()}  # there are no hard negatives


def draw(*shape: int, seed: int) -> Tensor:
    """Draw normal numbers; row n is the same for any number of rows."""
    return (
        torch.randn(16, *shape[1:], generator=torch.Generator().manual_seed(seed))[: shape[0]]
        if shape[0] <= 16
        else (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))
    )


def tensors(out: Any) -> list[Tensor]:
    """List all tensors of a part's output, in order."""
    if isinstance(out, Tensor):
        return [out]
    values = out.values() if isinstance(out, Mapping) else out if isinstance(out, tuple) else ()
    return [t for value in values for t in tensors(value)]


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Seed the global generator, and restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def folder() -> Iterator[Path]:
    """Make a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="n2kit-law-") as path:
        yield Path(path)
