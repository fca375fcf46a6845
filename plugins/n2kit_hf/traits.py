"""Facts about an architecture that no key of its configuration states, by `model_type`. No torch.

Read before any weight exists. When weights are loaded, `n2kit_hf.llm` measures the same facts on the model itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INNER = ("language_model", "text_model")  # names of the language model inside a multimodal one
UNLIMITED = 2**31  # the context of a model whose positions have no end

# Encoders: every position sees every other one, unless the configuration says `is_decoder`.
ENCODERS = frozenset({
    "albert", "bert", "big_bird", "camembert", "data2vec-text", "deberta", "deberta-v2", "distilbert", "electra",
    "embedding_gemma2_text", "ernie", "esm", "eurobert", "jina_embeddings_v3", "megatron-bert", "modernbert", "mpnet", "nomic_bert",
    "roberta", "roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod",
})  # fmt: skip

# Positions are counted from behind the padding token's id, so that many rows of the table are never used.
POSITIONS_AFTER_PADDING = frozenset({
    "camembert", "data2vec-text", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
})  # fmt: skip

# Attention that torch's fused one cannot express in transformers: soft capping, sinks, ALiBi, relative positions, old code.
EAGER_ONLY = frozenset({
    "bloom", "codegen", "deberta", "deberta-v2", "gemma2", "gpt_neo", "gpt_oss", "gptj", "megatron-bert", "mpnet",
    "mpt", "openai-gpt", "roformer", "vaultgemma", "xglm", "xlnet",
})  # fmt: skip
NO_ATTENTION = frozenset({"falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm"})


def reads_forwards(config: Mapping[str, Any]) -> bool:
    """Tell whether no position sees a later one; some decoders are configured as bidirectional (EmbeddingGemma)."""
    if config.get("is_causal") is False or config.get("use_bidirectional_attention") in (True, "all"):
        return False
    return config.get("model_type") not in ENCODERS or bool(config.get("is_decoder"))


def reads_embeddings(config: Mapping[str, Any]) -> bool:
    """Tell whether embeddings are all that a model reads: Gemma 3n and 4 look up a second one by token id.

    EmbeddingGemma 2 computes its second one from the first. For Gemma 4 see `n2kit_hf.gemma4`.
    """
    return not config.get("hidden_size_per_layer_input") or config.get("model_type") == "embedding_gemma2_text"


def layered_width(config: Mapping[str, Any]) -> int:
    """Count the numbers of a token's embeddings for the layers of Gemma 4, which stand behind its first embedding."""
    return int(config.get("num_hidden_layers", 30) * (config.get("hidden_size_per_layer_input", 256) or 0))


def attention_of(model_type: str | None) -> tuple[str, ...]:
    """List the implementations of attention to choose from; the first is the default."""
    if model_type in NO_ATTENTION:
        return ()
    return ("eager",) if model_type in EAGER_ONLY else ("sdpa", "eager")


def unused_positions(config: Mapping[str, Any]) -> int:
    """Count the rows at the start of the position table that no token reaches."""
    if config.get("model_type") not in POSITIONS_AFTER_PADDING:
        return 0
    padding = config.get("pad_token_id")
    return (1 if padding is None else int(padding)) + 1
