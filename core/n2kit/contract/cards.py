"""Cards: torch-free descriptions of components, which a plan reads before any weight exists.

`Dv/Dp` are the widths of a vision encoder's tokens and pooled vector, `De/Dh` those of an LLM's input and output.
Cards are plain facts; they come out of registry.yaml, a plug-in's spec, or a checkpoint's own configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from n2kit.contract.kinds import Kind


@dataclass(frozen=True)
class VisionCard:
    """Facts about a vision encoder at its input size."""

    tokens: int  # N, special tokens included
    token_width: int  # Dv, the width of a token
    pooled_width: int  # Dp, the width of the pooled vector; 0 where the encoder has no pooled vector
    image_size: int  # pixels, square
    parameters: int  # how many numbers the weights have
    prefix_tokens: int = 0  # CLS and register tokens before the patch grid

    @property
    def grid(self) -> int | None:
        """Side of the square patch grid, or None if the tokens form no square."""
        patches = self.tokens - self.prefix_tokens
        side = round(patches**0.5)
        return side if side * side == patches else None


@dataclass(frozen=True)
class LLMCard:
    """Facts about a language model without its output head."""

    input_width: int  # De, the width of an input embedding
    output_width: int  # Dh, the width of a hidden state; differs from De in ELECTRA
    layers: int  # blocks, one behind the other
    vocab: int  # rows of the embedding table
    context: int  # longest sequence, tokens
    parameters: int  # how many numbers the weights have, the table among them
    causal: bool = True  # a state depends on nothing behind it
    embeds: bool = True  # reads embeddings instead of ids, with a gradient for them
    attention: tuple[str, ...] = ("sdpa", "eager")  # implementations to choose from; none in a state-space model
    template: str | None = field(default=None, compare=False)  # of an embedder's prompt; None: n2kit's own fit
    max_tokens: int | None = field(default=None, compare=False)  # that an embedder's rows are cut to; None: its context

    def __post_init__(self) -> None:
        object.__setattr__(self, "attention", tuple(self.attention))  # a list, where it was read from a file


@dataclass(frozen=True)
class MLLMCard:
    """Facts about the parts of a multimodal LLM: its LLM, its vision tower, and the connector between them."""

    llm: LLMCard  # of its language model
    vision: VisionCard  # of its vision tower
    tokens: int  # Q, tokens that one image takes
    connector_parameters: int = 0  # how many numbers the connector's weights have

    def __post_init__(self) -> None:
        for name, card in (("llm", LLMCard), ("vision", VisionCard)):
            if isinstance(facts := getattr(self, name), Mapping):
                object.__setattr__(self, name, card(**facts))


Card = VisionCard | LLMCard | MLLMCard


@dataclass(frozen=True)
class ConnectorCard:
    """Facts about a connector between two given backbones."""

    tokens: int  # Q, tokens that one image takes
    parameters: int  # how many numbers the weights have


@dataclass(frozen=True)
class FusionCard:
    """Facts about a late fusion between two given backbones."""

    parameters: int  # how many numbers the weights have
    pooled: bool = True  # it needs the encoder's pooled vector
    output_width: int | None = None  # of what it gives; None: the LLM's, Dh


@dataclass(frozen=True)
class Preset:
    """A choice of weights within a component, and the facts that are known without them.

    `options` are the component's own settings; `card` is declared, and compared with the loaded weights at build time.
    `template` is the prompt template that an embedding model was trained on; None: n2kit's own fit.
    """

    weights: str = "random"
    options: Mapping[str, Any] = field(default_factory=dict)
    card: Card | None = None
    licence: str | None = None
    notes: str | None = None
    template: str | None = None


@dataclass(frozen=True)
class ComponentSpec:
    """A component as its plug-in declares it; the modules named in it are imported when they are used.

    target: `module:Attr` of the class (a `n2kit.contract.interfaces` interface; an `n2kit.index.Index` for kind `index`).
    config: `module:Attr` of a pydantic model, the component's options; its class variable `KEEPS_CARD` names those that leave a
            declared card valid.
    card:   `module:Attr` of a function. Backbones: `(config, locate) -> card`, where `locate()` gives the file or the
            folder with a config.json, None for random weights, and may download that one file;
            connectors and fusions: `(config, VisionCard, LLMCard) -> card`.
    shorthand: the option that `name:VALUE` sets (`qformer:16` sets `tokens`).
    wildcard: `module:Attr` of a function `(VALUE) -> Preset`, for a name that stands for many models (`timm:ANYTHING`).
    model_types: `model_type` values of Hugging Face configurations that the component reads.
    requires: distributions that must be installed, as pip writes them (`open_clip_torch>=2.30`); `extra`, the pip extra of the
            owning distribution that brings them.
    capabilities: what the component can do beyond its interface, out of those of its kind (`KIND_SPECS`); the conformance kit tries each.
    partners: settings of the model that the laws join it in, where not every model is one: `{"vision": "siglip:tiny"}`.
    waived: laws that it does not keep, each with the reason, which `n2kit plugins check` shows.
    """

    kind: Kind
    name: str
    target: str
    summary: str
    config: str
    card: str | None = None
    shorthand: str | None = None
    wildcard: str | None = None
    model_types: tuple[str, ...] = ()
    presets: Mapping[str, Preset] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    extra: str | None = None
    capabilities: frozenset[str] = frozenset()
    partners: Mapping[str, Any] = field(default_factory=dict)
    waived: Mapping[str, str] = field(default_factory=dict)
