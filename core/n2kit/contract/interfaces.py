"""The interfaces of a model's parts, and the types that they pass to each other. Shapes are the contract.

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
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from n2kit.contract.cards import LLMCard, VisionCard
from n2kit.contract.kinds import CARDS
from n2kit.errors import Mismatch
from n2kit.utils.files import read_json

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydantic import BaseModel
    from transformers import PreTrainedTokenizerBase

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class LoadSpec:
    """Options and the place of weights (None: random) that a backbone is created from.

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
        """Apply `change` to each tensor that is not None."""
        return VisionOut.merge([self], lambda column: change(column[0]))

    @staticmethod
    def merge(outs: Sequence[VisionOut], how: Callable[[list[Tensor]], Tensor]) -> VisionOut:
        """Merge several outputs to one: `how` makes one tensor of a field's tensors (`torch.cat`, `torch.stack`)."""
        tokens, *others = ([t for t in column if t is not None] for column in zip(*outs, strict=True))
        return VisionOut(how(tokens), *(how(column) if column else None for column in others))


class Part(nn.Module, ABC):
    """A piece of the joined model that can be frozen, saved and loaded on its own."""

    frozen: bool = False
    partially_trainable: bool = False  # its last blocks, or an adapter
    original_dtypes: Mapping[str, torch.dtype] = MappingProxyType({})  # tensor → its type before `prepare_for`
    origin: str | None = None  # identifies the files that it was loaded from, whose hashes were compared then

    def freeze(self) -> Self:
        """Turn gradients off and keep eval mode from now on, also after `.train()`: running statistics would drift otherwise."""
        self.requires_grad_(False)
        self.frozen = True
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        super().train(mode and not self.frozen)
        if mode and self.partially_trainable:
            for module in self.frozen_modules():
                module.eval()
        return self

    def prepare_for(self, dtype: torch.dtype) -> None:
        """Convert weights to float32 for a computation in float32, and float16 ones for any: autocast to bf16 takes none.

        It is exact; the types from before are remembered for saving.
        """

        def wide(tensor: Tensor) -> bool:
            narrow = tensor.is_floating_point() and tensor.dtype != torch.float32
            return narrow and (dtype == torch.float32 or tensor.dtype == torch.float16)

        had = {name: tensor.dtype for name, tensor in self.state_dict().items() if wide(tensor)}
        self.original_dtypes = {**self.original_dtypes, **had}
        self._apply(lambda tensor: tensor.float() if wide(tensor) else tensor)  # type: ignore[no-untyped-call]

    @contextmanager
    def in_original_dtypes(self) -> Iterator[None]:
        """Convert the weights back to their types from before `prepare_for`, inside the `with` block.

        Only where that loses nothing, that is, where nothing has been trained since.
        """
        tensors = self.state_dict(keep_vars=True)
        converted = [(tensors[name], dtype) for name, dtype in self.original_dtypes.items() if name in tensors]
        if not all(torch.equal(t.data.to(dtype).float(), t.data) for t, dtype in converted):
            converted = []
        for tensor, dtype in converted:
            tensor.data = tensor.data.to(dtype)
        try:
            yield
        finally:
            for tensor, _ in converted:
                tensor.data = tensor.data.float()

    def frozen_modules(self) -> list[nn.Module]:
        """List the modules that training leaves as they are.

        In a frozen part these are all modules; in a partially trainable one, those with weights or buffers of which none is trained.
        """
        if self.frozen:
            return list(self.modules())
        if not self.partially_trainable:
            return []
        state = {module: [*module.parameters(), *module.buffers()] for module in self.modules()}
        return [module for module, own in state.items() if own and not any(t.requires_grad for t in own)]

    def blocks(self) -> Sequence[nn.Module]:
        """List the blocks in order of depth: gradient checkpointing, sharding and layer-wise settings work on them."""
        return []

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write configuration and weights (safetensors) into an empty folder."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Load what `save` wrote, bit-equal.

        Raises:
            Exception: a weight is missing or left over.
        """


class VisionEncoder(Part):
    """An encoder of images to tokens and one pooled vector. The image transform belongs to the part and is saved with it.

    settings_id: a text that differs whenever `forward` computes something else with the same weights; None where the part does not
        say. Then it is saved once a process that caches its outputs, to learn what they depend on.
    """

    card: VisionCard

    @property
    def settings_id(self) -> str | None:
        return None

    @classmethod
    @abstractmethod
    def create(cls, spec: LoadSpec) -> Self: ...

    @abstractmethod
    def transform(self, image: Image) -> Tensor:
        """Transform one RGB image of any size to pixels [3, H, W]."""

    @abstractmethod
    def forward(self, pixels: Tensor) -> VisionOut:
        """Encode pixels [I, 3, H, W] to tokens [I, N, Dv] and pooled [I, Dp] (None where `card.pooled_width` is 0)."""

    @property
    @abstractmethod
    def transform_id(self) -> str:
        """A text that differs whenever `transform` computes something else."""


class LLM(Part):
    """A language model from input embeddings to hidden states after its final norm. Inputs are right padded.

    Its output head is left out, unless the capability `logits` is declared and `LoadSpec.head` asks for it.

    extra_inputs: names of keyword inputs that `forward` takes besides x. `mask` [B, T] bool, real positions: for a bidirectional
        model (a causal one never sees the padding). `image` [B, T] bool, visual tokens: for positions in two dimensions.
    supports_prefix_cache: True if it has `prefill`, and `forward` the keyword `past`.
    settings_id: a text that differs whenever `forward` computes something else with the same weights; None where the part
        does not say, and then its hidden states are not cached.
    """

    card: LLMCard
    tokenizer: PreTrainedTokenizerBase
    extra_inputs: frozenset[str] = frozenset()

    @property
    def supports_prefix_cache(self) -> bool:
        return False

    @property
    def settings_id(self) -> str | None:
        return None

    def prefill(self, x: Tensor) -> Any:
        """Compute a prefix x [1, P, De] that many rows have in common, for `forward(..., past=...)` to continue.

        `forward(x[:, P:], past=prefill(x[:1, :P]))` gives the hidden states from P on, and the same gradients, where the first P
        embeddings of all rows are equal.
        """
        raise NotImplementedError

    def extras(self, mask: Tensor, image: Tensor | None = None) -> dict[str, Tensor]:
        """Select the keyword inputs that `forward` takes: `mask` [B, T], `image` [B, T] (None: no visual tokens)."""
        known = {"mask": mask, "image": torch.zeros_like(mask) if image is None else image}
        return {name: known[name] for name in self.extra_inputs}

    @classmethod
    @abstractmethod
    def create(cls, spec: LoadSpec) -> Self: ...

    @abstractmethod
    def embed(self, ids: Tensor) -> Tensor:
        """Look up the input embeddings of ids [B, T]: [B, T, De]."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Compute the hidden states after the final norm [B, T, Dh] from embeddings x [B, T, De]."""

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Score the token that follows each of hidden_states [n, Dh]: [n, vocab] (capability `logits`).

        Raises:
            Mismatch: the model was created without its output head.
        """
        raise Mismatch(f"{type(self).__name__} gives no scores of tokens: it has no output head", "another llm")

    def generate(
        self, x: Tensor, max_new_tokens: int, eos_token_id: int | None = None, num_beams: int = 1
    ) -> list[int]:
        """Generate the likeliest continuation of x [1, T, De]: at most `max_new_tokens` ids, `eos_token_id` not included.

        This default is greedy and computes the whole row again for each token; a model with a key-value cache overrides it.

        Raises:
            Mismatch: no output head; or several beams, which this default does not have.
        """
        if num_beams > 1:
            raise Mismatch(
                f"{type(self).__name__} takes the likeliest token at each step: it has no beams", "--beams 1"
            )
        generated: list[int] = []
        while len(generated) < max_new_tokens:
            hidden_states = self(x, **self.extras(torch.ones_like(x[..., 0], dtype=torch.bool)))
            token = int(self.logits(hidden_states[:, -1]).argmax())
            if token == eos_token_id:
                break
            generated.append(token)
            x = torch.cat([x, self.embed(torch.tensor([[token]], device=x.device)).to(x.dtype)], 1)
        return generated


class DecomposedMLLM(NamedTuple):
    """The three parts of a multimodal LLM."""

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
    def create(cls, spec: LoadSpec) -> DecomposedMLLM: ...


class RandomInitPart(Part):
    """A part with random initial weights, made from its options and the cards of the backbones that it joins."""

    config_class: ClassVar[type[BaseModel]]

    def __init__(self, config: Any, **cards: VisionCard | LLMCard) -> None:
        super().__init__()
        self.config, self.cards = config, cards

    def save(self, folder: Path) -> None:
        content = {"options": self.config.model_dump(), "cards": {k: asdict(c) for k, c in self.cards.items()}}
        (folder / CONFIG_FILE).write_text(json.dumps(content, indent=1))
        if self.state_dict():
            save_model(self, str(folder / WEIGHTS_FILE))

    @classmethod
    def load(cls, folder: Path) -> Self:
        content = read_json(folder / CONFIG_FILE)
        part = cls(
            cls.config_class.model_validate(content["options"]),
            **{kind: CARDS[kind](**card) for kind, card in content["cards"].items()},
        )
        if part.state_dict():
            load_model(part, str(folder / WEIGHTS_FILE), strict=True)
        return part


class Connector(RandomInitPart):
    """A map from vision tokens to visual tokens in the LLM's input space: `cls(config, vision=card, llm=card)`."""

    tokens: int  # Q, the same for every image

    @abstractmethod
    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map tokens [I, N, Dv], of which mask [I, N] marks the real ones (None: all), to visual tokens [I, Q, De]."""


class Fusion(RandomInitPart):
    """Late fusion of the image into a compressed word (NoteLLM-2, section 4.3): `cls(config, vision=card, llm=card)`.

    extra_inputs: names of keyword inputs that `forward` takes besides hidden and pooled: `tokens` [B, N, Dv], `mask` [B, N] or None;
        `has_text`, `has_image` [B] bool. A fusion that reads `has_image` is called for every item, with zeros for an image that is
        not there; any other one for items with an image alone: the others keep their word.
    """

    extra_inputs: frozenset[str] = frozenset()

    @property
    def output_width(self) -> int:
        """The width of what `forward` gives: Dh, and another one only where it reads `has_image`."""
        return cast("LLMCard", self.cards["llm"]).output_width

    def project(self, pooled: Tensor) -> Tensor:
        """Project pooled [B, Dp] to the late feature, [B, Dh]; by default pooled itself."""
        return pooled

    @abstractmethod
    def forward(self, hidden: Tensor, pooled: Tensor) -> Tensor:
        """Fuse pooled [B, Dp] into hidden [B, Dh]: [B, `output_width`]."""


class LossOut(NamedTuple):
    """`loss` is a scalar; `terms` are detached scalars to log."""

    loss: Tensor
    terms: dict[str, Tensor]


class Loss(RandomInitPart):
    """A loss over pairs of items: `cls(config)`. Row i and row i+B of a view are partners, i < B.

    extra_inputs: names of keyword inputs that `forward` takes besides the views. `grades` [B]: how alike the two items of a pair
        are, 1 where the pairs file has no third column. `log_q` [2B]: log of the frequency of a row's item in all pairs.
        `positives` [2B, 2B]: the grade of the pair of two rows' items, 0 where they are no known pair; None: partners alone, of grade 1.
        `generation`: the mean of −log p over the tokens of the answers that the step's items are to give (see
        `n2kit.modeling.prompts.Task`), a scalar with gradient, 0 where nothing was asked; its spec declares the capability too.
        `negatives` [M], where there are any: the numbers of the last M rows of all views, 2B, 2B+1, …, which are hard negatives:
        they have no partner, and every one of the 2B rows has them among its candidates. `present`, `exclude`, `positives` and `log_q`
        cover them.
    """

    extra_inputs: frozenset[str] = frozenset()

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
