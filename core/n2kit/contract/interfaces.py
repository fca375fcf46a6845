"""The interfaces, and what they pass to each other. Shapes are the contract.

`B` items, `I` images, `N` vision tokens, `Q` connector tokens, `T` padded length, `Dv/Dp` vision token/pooled width,
`De` LLM input width, `Dh` LLM output width (De differs from Dh in ELECTRA).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from n2kit.contract.cards import CARDS, LLMCard, VisionCard
from n2kit.errors import Mismatch

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydantic import BaseModel
    from transformers import PreTrainedTokenizerBase

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class LoadSpec:
    """What a backbone is created from: its options, and its weights' place (None: random).

    `head`: a language model is to keep its output head, for `LLM.logits`; asked only of one that declares the capability.
    """

    config: Any  # the component's pydantic model
    path: Path | None = None
    head: bool = False


class VisionOut(NamedTuple):
    """`tokens` [I, N, Dv], `pooled` [I, Dp] or None, `mask` [I, N] bool or None where every token is real."""

    tokens: Tensor
    pooled: Tensor | None = None
    mask: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> VisionOut:
        """`change` applied to each tensor that is there."""
        return VisionOut.merge([self], lambda column: change(column[0]))

    @staticmethod
    def merge(outs: Sequence[VisionOut], how: Callable[[list[Tensor]], Tensor]) -> VisionOut:
        """One output out of several: `how` makes one tensor of a column (`torch.cat`, `torch.stack`)."""
        tokens, *others = ([t for t in column if t is not None] for column in zip(*outs, strict=True))
        return VisionOut(how(tokens), *(how(column) if column else None for column in others))


class Part(nn.Module, ABC):
    """A piece of the joined model that can be frozen, saved and loaded on its own."""

    frozen: bool = False
    partly: bool = False  # trained in part: its last blocks, or an adapter
    narrow: Mapping[str, torch.dtype] = MappingProxyType({})  # tensor → the type that it had before `widen`

    def freeze(self) -> Self:
        """No gradient and eval mode from now on, whatever `.train()` says: running statistics would drift otherwise."""
        self.requires_grad_(False)
        self.frozen = True
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode and not self.frozen)
        if mode and self.partly:
            for module in self.still():
                module.eval()
        return self

    def widen(self) -> None:
        """All weights to float32, which is exact; the types that they had are remembered for saving."""
        had = {n: t.dtype for n, t in self.state_dict().items() if t.is_floating_point() and t.dtype != torch.float32}
        self.narrow = {**self.narrow, **had}
        self.float()

    @contextmanager
    def narrowed(self) -> Iterator[None]:
        """Back in the types from before `widen` for a while, where that loses nothing: nothing has been trained since."""
        tensors = self.state_dict(keep_vars=True)
        wide = [(tensors[name], dtype) for name, dtype in self.narrow.items() if name in tensors]
        if not all(torch.equal(t.data.to(dtype).float(), t.data) for t, dtype in wide):
            wide = []
        for tensor, dtype in wide:
            tensor.data = tensor.data.to(dtype)
        try:
            yield
        finally:
            for tensor, _ in wide:
                tensor.data = tensor.data.float()

    def still(self) -> list[nn.Module]:
        """Modules that training leaves as they are.

        All of a frozen part; in one that is trained in part, those with weights or statistics and none of them trained.
        """
        if self.frozen:
            return list(self.modules())
        if not self.partly:
            return []
        state = {module: [*module.parameters(), *module.buffers()] for module in self.modules()}
        return [module for module, own in state.items() if own and not any(t.requires_grad for t in own)]

    def blocks(self) -> Sequence[nn.Module]:
        """Modules in order of depth: what checkpointing, sharding and layer-wise settings work on."""
        return []

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write configuration and weights (safetensors) into an empty folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote, bit-equal. Raises if a weight is missing or left over."""


class VisionEncoder(Part):
    """Images → tokens and one pooled vector. The image transform belongs to the part and is saved with it."""

    card: VisionCard

    @classmethod
    @abstractmethod
    def create(cls, spec: LoadSpec) -> Self: ...

    @abstractmethod
    def transform(self, image: Image) -> Tensor:
        """One RGB image of any size → pixels [3, H, W]."""

    @abstractmethod
    def forward(self, pixels: Tensor) -> VisionOut:
        """pixels [I, 3, H, W] → tokens [I, N, Dv], pooled [I, Dp] (None where `card.pooled_width` is 0)."""

    @property
    @abstractmethod
    def transform_id(self) -> str:
        """A text that differs whenever `transform` computes something else."""


class LLM(Part):
    """A language model that reads embeddings and gives its final-norm states. Inputs are right padded.

    Its output head stays behind, unless the capability `logits` is declared and `LoadSpec.head` asks for it.

    wants: keyword facts that `forward` takes besides x. `mask` [B, T] bool, real positions: for a model that reads both ways
        (a causal one never sees the padding). `image` [B, T] bool, visual tokens: for positions in two dimensions.
    shares_start: whether it has `start`, and `forward` the keyword `after`.
    settings_id: a text that differs whenever `forward` computes something else with the same weights; None where the part
        does not say, and then its states are not kept.
    """

    card: LLMCard
    tokenizer: PreTrainedTokenizerBase
    wants: frozenset[str] = frozenset()

    @property
    def shares_start(self) -> bool:
        return False

    @property
    def settings_id(self) -> str | None:
        return None

    def start(self, x: Tensor) -> Any:
        """x [1, P, De], what many rows begin with → `after`, with which `forward` reads what stands behind it.

        `forward(x[:, P:], after=start(x[:1, :P]))` gives the states from P on, and the same gradients, where rows begin alike.
        """
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def create(cls, spec: LoadSpec) -> Self: ...

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """ids [B, T] → input embeddings [B, T, De]."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, De] → states after the final norm [B, T, Dh]."""

    def logits(self, states: Tensor) -> Tensor:
        """states [n, Dh] → scores of the token that follows each, [n, vocab] (capability `logits`).

        Raises:
            Mismatch: the model was created without its output head.
        """
        raise Mismatch(f"{type(self).__name__} gives no scores of tokens: it has no output head", "another llm")

    def continued(self, x: Tensor, most: int, stop: int | None = None, beams: int = 1) -> list[int]:
        """The likeliest tokens behind x [1, T, De], one after the other: at most `most`, without `stop`, which ends them.

        This reads the whole row again for each token; a model that keeps what it has read overrides it.

        Raises:
            Mismatch: no output head; or several beams, where that is all there is.
        """
        if beams > 1:
            raise Mismatch(
                f"{type(self).__name__} takes the likeliest token at each step: it has no beams", "--beams 1"
            )
        found: list[int] = []
        while len(found) < most:
            facts = {
                "mask": torch.ones_like(x[..., 0], dtype=torch.bool),
                "image": torch.zeros_like(x[..., 0], dtype=torch.bool),
            }
            states = self(x, **{name: facts[name] for name in self.wants})
            token = int(self.logits(states[:, -1]).argmax())
            if token == stop:
                break
            found.append(token)
            x = torch.cat([x, self.embed(torch.tensor([[token]], device=x.device)).to(x.dtype)], 1)
        return found


class Joined(NamedTuple):
    """A multimodal LLM taken apart."""

    llm: LLM
    vision: VisionEncoder
    connector: Connector


class MLLM(ABC):
    """An existing multimodal LLM: three parts that were trained together, each of which is saved and loaded on its own."""

    llm: ClassVar[type[LLM]]
    vision: ClassVar[type[VisionEncoder]]
    connector: ClassVar[type[Connector]]

    @classmethod
    @abstractmethod
    def create(cls, spec: LoadSpec) -> Joined: ...


class NewPart(Part):
    """A part that starts at random, from its options and the cards of the backbones that it joins."""

    config_class: ClassVar[type[BaseModel]]

    def __init__(self, config: Any, **cards: VisionCard | LLMCard) -> None:
        super().__init__()
        self.config, self.cards = config, cards

    def save(self, folder: Path) -> None:
        facts = {"options": self.config.model_dump(), "cards": {k: asdict(c) for k, c in self.cards.items()}}
        (folder / CONFIG_FILE).write_text(json.dumps(facts, indent=1))
        if next(self.parameters(), None) is not None:
            save_model(self, str(folder / WEIGHTS_FILE))

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = json.loads((folder / CONFIG_FILE).read_text("utf8"))
        part = cls(
            cls.config_class.model_validate(facts["options"]),
            **{kind: CARDS[kind](**card) for kind, card in facts["cards"].items()},
        )
        if next(part.parameters(), None) is not None:
            load_model(part, str(folder / WEIGHTS_FILE), strict=True)
        return part


class Connector(NewPart):
    """Vision tokens → visual tokens in the LLM's input space: `cls(config, vision=card, llm=card)`."""

    tokens: int  # Q, the same for every image

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens [I, N, Dv], mask [I, N] or None → [I, Q, De]."""


class Fusion(NewPart):
    """Late fusion of the image into a compressed word (NoteLLM-2, section 4.3): `cls(config, vision=card, llm=card)`.

    wants: keyword facts that `forward` takes besides hidden and pooled: `tokens` [B, N, Dv], `mask` [B, N] or None.
    """

    wants: frozenset[str] = frozenset()

    def project(self, pooled: Tensor) -> Tensor:
        """pooled [B, Dp] → the late feature, [B, Dh] where the fusion projects."""
        return pooled

    @abstractmethod
    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        """hidden [B, Dh], pooled [B, Dp] → [B, Dh]."""


class LossOut(NamedTuple):
    """`loss` is a scalar; `terms` are detached scalars to log."""

    loss: Tensor
    terms: dict[str, Tensor]


class Loss(NewPart):
    """Pairs of views → one scalar: `cls(config)`. Row i and row i+B of a view are partners, i < B.

    wants: keyword facts that `forward` takes besides the views. `grades` [B]: how alike the two items of a pair are, 1 where
        the pairs file has no third column. `log_q` [2B]: log of the share that a row's item has of all ends of pairs.
        `generation`: the mean of −log p over the tokens of the answers that the step's items are to give (see
        `n2kit.modeling.prompts.Task`), a scalar with gradient, 0 where nothing was asked; its spec declares the capability too.
        `negatives` [M], where there are any: the numbers of the last M rows of all views, 2B, 2B+1, …, which are hard negatives:
        they have no partner, and every one of the 2B rows has them among its candidates. `present`, `exclude` and `log_q` cover them.
    """

    wants: frozenset[str] = frozenset()

    @abstractmethod
    def forward(
        self, views: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None, exclude: Tensor | None = None
    ) -> LossOut:
        """Compute the loss of one batch of pairs.

        Args:
            views: name → vectors [2B, D], not normalised; `multimodal` always, `visual` under mICL.
            present: name → [2B] bool, False where an item has no such view (no image, say).
            exclude: [2B, 2B] bool, True for pairs of rows that are no negatives: the same item, known positives.

        With `negatives`, 2B + M stands for 2B in all of these.
        """
