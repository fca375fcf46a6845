"""The Llama family: Llama 2 and 3.x, SmolLM2, TinyLlama."""

from n2kit import ComponentSpec, LLMCard, Variant, hookimpl

N2KIT_PLUGIN_API = (1, 0)

TINY = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
}  # fmt: skip
TINY_CARD = LLMCard(input_width=32, output_width=32, layers=2, vocab=512, context=2048, parameters=34976)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="llm",
            name="llama",
            target="n2kit_hf.llm:TransformersLLM",
            summary="Llama 2/3.x, SmolLM2, TinyLlama",
            config="n2kit_hf.cards:LLMConfig",
            card="n2kit_hf.cards:llm_card",
            model_types=("llama",),
            variants={"tiny": Variant(options={"config": TINY}, card=TINY_CARD)},
        )
    ]
