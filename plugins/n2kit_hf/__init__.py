"""Any causal language model of transformers, by hub id, folder or GGUF file: `hf:org/name`, `file:folder`."""

from n2kit import ComponentSpec, LLMCard, Variant, hookimpl

N2KIT_PLUGIN_API = (1, 0)

TINY = {
    "model_type": "gpt2", "vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
TINY_CARD = LLMCard(input_width=32, output_width=32, layers=2, vocab=512, context=512, parameters=58240)


@hookimpl
def n2kit_register_components() -> list[ComponentSpec]:
    return [
        ComponentSpec(
            kind="llm",
            name="hf",
            target="n2kit_hf.llm:TransformersLLM",
            summary="any causal LM of transformers: hf:org/name, file:folder, file:model.gguf",
            config="n2kit_hf.cards:LLMConfig",
            card="n2kit_hf.cards:llm_card",
            model_types=("*",),
            variants={"tiny": Variant(options={"config": TINY}, card=TINY_CARD, notes="random GPT-2")},
        )
    ]
