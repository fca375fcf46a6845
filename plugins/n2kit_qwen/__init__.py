"""The Qwen family: Qwen2, Qwen2.5, Qwen3."""

from n2kit import ComponentSpec, LLMCard, Variant, hookimpl

N2KIT_PLUGIN_API = (1, 0)

TINY = {
    "model_type": "qwen3", "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048,
}  # fmt: skip
TINY2 = {k: v for k, v in TINY.items() if k != "head_dim"} | {"model_type": "qwen2"}


def _card(parameters: int) -> LLMCard:
    return LLMCard(input_width=32, output_width=32, layers=2, vocab=512, context=2048, parameters=parameters)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="llm",
            name="qwen",
            target="n2kit_hf.llm:TransformersLLM",
            summary="Qwen2, Qwen2.5, Qwen3",
            config="n2kit_hf.cards:LLMConfig",
            card="n2kit_hf.cards:llm_card",
            model_types=("qwen2", "qwen3"),
            variants={
                "tiny": Variant(options={"config": TINY}, card=_card(35008), notes="random Qwen3"),
                "tiny-2.5": Variant(options={"config": TINY2}, card=_card(35104), notes="random Qwen2"),
            },
        )
    ]
