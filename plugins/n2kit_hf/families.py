"""Language-model families of transformers: a name, the architectures behind it, and tiny random models of them. No torch.

A row of `FAMILIES` is all that a family needs: nearly every one is read by `n2kit_hf.llm:TransformersLLM`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from n2kit.contract import ComponentSpec, LLMCard, Preset
from n2kit_hf.traits import UNLIMITED

BOLD = {"initializer_range": 0.2}  # the usual 0.02 leaves attention next to no weight in two layers
IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
SIZE = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 2048, **IDS, **BOLD,
}  # fmt: skip
GROUPED = {**SIZE, "num_key_value_heads": 2}
GPT2 = {
    "model_type": "gpt2", "vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512,
    "bos_token_id": 0, "eos_token_id": 0, **BOLD,
}  # fmt: skip
GEMMA4 = {
    **GROUPED,
    "model_type": "gemma4_text",
    "head_dim": 8,
    "global_head_dim": 16,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 512,
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 64,
    "pad_token_id": 0,
}
STATES = {"vocab_size": 512, **BOLD, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, **IDS}


@dataclass(frozen=True)
class Tiny:
    """A random model of a family: its configuration, and its card's facts besides width 32, 2 layers and vocabulary 512."""

    config: Mapping[str, Any]
    parameters: int
    notes: str
    context: int = 2048
    facts: Mapping[str, Any] | None = None

    def preset(self) -> Preset:
        card = {"input_width": 32, "output_width": 32, "layers": 2, "vocab": 512, **(self.facts or {})}
        card |= {"context": self.context, "parameters": self.parameters}
        return Preset(options={"config": dict(self.config)}, card=LLMCard(**card), notes=f"random {self.notes}")


@dataclass(frozen=True)
class Family:
    """A component of kind `llm`; `tinies` are its presets `tiny`, `tiny-…`."""

    name: str
    summary: str
    model_types: tuple[str, ...]
    tinies: Mapping[str, Tiny]
    causal: bool = True
    target: str = "n2kit_hf.llm:TransformersLLM"
    card: str = "n2kit_hf.cards:llm_card"

    def spec(self) -> ComponentSpec:
        return ComponentSpec(
            kind="llm",
            name=self.name,
            target=self.target,
            summary=self.summary,
            config="n2kit_hf.cards:LLMConfig",
            card=self.card,
            model_types=self.model_types,
            presets={name: tiny.preset() for name, tiny in self.tinies.items()},
            capabilities=frozenset({"blocks", "bfloat16"} | ({"logits"} if self.causal else set())),
        )


EAGER = {"attention": ("eager",)}
RECURRENT: dict[str, Any] = {"attention": ()}
ENCODER = {"causal": False}

FAMILIES = (
    Family(
        "mistral", "Mistral, Ministral, Mixtral", ("mistral", "ministral", "ministral3", "mixtral"),
        {"tiny": Tiny({**GROUPED, "model_type": "mistral", "head_dim": 8}, 34976, "Mistral")},
    ),
    Family(
        "gemma", "Gemma 1, 2, 3 (text), EmbeddingGemma", ("gemma", "gemma2", "gemma3_text", "vaultgemma"),
        {
            "tiny": Tiny({**GROUPED, "model_type": "gemma2", "head_dim": 8}, 35104, "Gemma 2", facts=EAGER),
            "tiny-3": Tiny({**GROUPED, "model_type": "gemma3_text", "head_dim": 8}, 35136, "Gemma 3"),
        },
    ),
    Family(
        "gemma-4", "Gemma 4 (text): its embeddings carry those of its layers", ("gemma4_text",),
        {
            "tiny": Tiny(GEMMA4, 48024, "Gemma 4, as E2B and E4B", facts={"input_width": 48}),
            "tiny-31b": Tiny(
                {**GEMMA4, "hidden_size_per_layer_input": 0}, 38224, "Gemma 4, as 31B: no embeddings of layers",
            ),
        },
        target="n2kit_hf.gemma4:Gemma4LLM", card="n2kit_hf.cards:gemma4_card",
    ),
    Family(
        "phi", "Phi-1.5, Phi-2, Phi-3, Phi-3.5, Phi-4", ("phi", "phi3", "phimoe"),
        {
            "tiny": Tiny({**GROUPED, "model_type": "phi3"}, 34976, "Phi-3"),
            "tiny-2": Tiny({**SIZE, "model_type": "phi"}, 33408, "Phi-2"),
        },
    ),
    Family(
        "olmo", "OLMo 1, 2, 3, OLMoE", ("olmo", "olmo2", "olmo3", "olmoe"),
        {"tiny": Tiny({**GROUPED, "model_type": "olmo2"}, 35072, "OLMo 2")},
    ),
    Family(
        "granite", "Granite 3.x: scales its input embeddings", ("granite",),
        {
            "tiny": Tiny(
                {**GROUPED, "model_type": "granite", "embedding_multiplier": 12.0, "residual_multiplier": 0.22,
                 "attention_multiplier": 0.125}, 34976, "Granite",
            )
        },
    ),
    Family(
        "opt", "OPT: its 350m reads and gives narrower vectors than it computes with", ("opt",),
        {
            "tiny": Tiny(
                {"model_type": "opt", "vocab_size": 512, "hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64,
                 "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512, **IDS},
                42816, "OPT, 16 wide outside and 32 inside", 512, {"input_width": 16, "output_width": 16},
            )
        },
    ),
    Family(
        "gpt-neox", "Pythia, GPT-NeoX", ("gpt_neox",),
        {"tiny": Tiny({**SIZE, "model_type": "gpt_neox"}, 33536, "GPT-NeoX")},
    ),
    Family("gpt2", "GPT-2", ("gpt2",), {"tiny": Tiny(GPT2, 58240, "GPT-2", 512)}),
    Family(
        "mamba", "Mamba, Mamba-2, Falcon Mamba: no attention", ("mamba", "mamba2", "falcon_mamba"),
        {
            "tiny": Tiny(
                {**STATES, "model_type": "mamba", "time_step_rank": 4}, 33760, "Mamba", UNLIMITED, RECURRENT
            ),
            "tiny-2": Tiny(
                {**STATES, "model_type": "mamba2", "num_heads": 4, "head_dim": 16, "n_groups": 1, "chunk_size": 16},
                31000, "Mamba-2", UNLIMITED, RECURRENT,
            ),
        },
    ),
    Family(
        "falcon", "Falcon 1, 2", ("falcon",),
        {
            "tiny": Tiny(
                {"model_type": "falcon", "vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "max_position_embeddings": 2048, **IDS}, 38080, "Falcon",
            )
        },
    ),
    Family(
        "bloom", "BLOOM, BLOOMZ", ("bloom",),
        {
            "tiny": Tiny(
                {"model_type": "bloom", "vocab_size": 512, "hidden_size": 32, "n_layer": 2, "n_head": 4, **IDS, **BOLD},
                41920, "BLOOM", UNLIMITED, EAGER,
            )
        },
    ),
    Family(
        "smollm3", "SmolLM3", ("smollm3",),
        {"tiny": Tiny({**GROUPED, "model_type": "smollm3"}, 34976, "SmolLM3")},
    ),
    Family(
        "glm", "GLM-4 (9B, 32B)", ("glm", "glm4"),
        {"tiny": Tiny({**GROUPED, "model_type": "glm4", "head_dim": 8}, 35232, "GLM-4")},
    ),
    Family(
        "lfm2", "LFM2: convolutions and attention by turns", ("lfm2",),
        {
            "tiny": Tiny(
                {**GROUPED, "model_type": "lfm2", "layer_types": ["conv", "full_attention"],
                 "block_auto_adjust_ff_dim": False}, 36112, "LFM2",
            )
        },
    ),
    Family(
        "bert", "BERT, RoBERTa, ModernBERT and other encoders: read both ways, no mICL",
        ("bert", "roberta", "xlm-roberta", "modernbert", "distilbert", "electra", "mpnet", "camembert"),
        {
            "tiny": Tiny({**SIZE, "model_type": "bert", "max_position_embeddings": 512}, 49984, "BERT", 512, ENCODER),
            "tiny-roberta": Tiny(
                {**SIZE, "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 50048, "RoBERTa",
                512, ENCODER,
            ),
            "tiny-modern": Tiny(
                {**SIZE, "model_type": "modernbert", "cls_token_id": 0, "sep_token_id": 0}, 37024, "ModernBERT",
                facts=ENCODER,
            ),
        },
        causal=False,
    ),
    Family(
        "hf", "any language model of transformers: hf:org/name, file:folder, file:model.gguf", ("*",),
        {"tiny": Tiny(GPT2, 58240, "GPT-2", 512)},
    ),
)  # fmt: skip


def llm_specs() -> list[ComponentSpec]:
    """List the components of all families; `hf` reads the model types that no family names."""
    return [family.spec() for family in FAMILIES]
