"""Text embedders as language models: their own pooling, dense layers and prompt, as sentence-transformers computes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import n2kit
from n2kit.data.items import Item
from n2kit.errors import BadInput, Mismatch
from n2kit.planning.planner import make_plan
from n2kit.recipe.settings import resolve
from n2kit_hf.families import GROUPED, SIZE
from n2kit_hf.tiny import byte_tokenizer

TEXTS = ["oak chair", "a red lamp of glass, for the desk", "杯子", "x"]
GEMMA = {**GROUPED, "model_type": "gemma3_text", "head_dim": 8, "use_bidirectional_attention": True}
MODERN = {**SIZE, "model_type": "modernbert", "cls_token_id": 0, "sep_token_id": 0}
BERT = {**SIZE, "model_type": "bert", "max_position_embeddings": 512}
QWEN = {**GROUPED, "model_type": "qwen3", "head_dim": 8}
LLAMA = {**GROUPED, "model_type": "llama"}
# Architecture, pooling, widths of the dense layers behind it, prompt of documents.
CASES: dict[str, tuple[dict[str, Any], str, tuple[int, ...], str]] = {
    "EmbeddingGemma": (GEMMA, "mean", (48, 32), "title: none | text: "),
    "ModernBERT, mean": (MODERN, "mean", (), "search_document: "),
    "ModernBERT, CLS": (MODERN, "cls", (), ""),
    "BERT with a narrower vector": (BERT, "mean", (24,), ""),
    "Qwen3-Embedding": (QWEN, "lasttoken", (), ""),
    "a decoder with a dense layer": (QWEN, "lasttoken", (24,), ""),
    "a decoder with a mean": (LLAMA, "mean", (), ""),
}


def save_embedder(name: str, folder: Path) -> Any:
    """Write a random embedder as sentence-transformers does, with a tokenizer that adds CLS and SEP; return it."""
    st = pytest.importorskip("sentence_transformers", reason="the reference that vectors are compared with")
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModel

    config, mode, widths, prompt = CASES[name]
    made = AutoConfig.for_model(**config)
    torch.manual_seed(0)
    AutoModel.from_config(made).save_pretrained(folder / "base")
    tokenizer = byte_tokenizer(made)
    tokenizer.add_special_tokens({"pad_token": "<pad>", "cls_token": "<cls>", "sep_token": "<sep>"})
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<cls>", "<sep>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<cls> $A <sep>", special_tokens=ids)
    tokenizer.save_pretrained(folder / "base")
    width, layers = made.hidden_size, []
    for out in widths:
        layers.append(Dense(width, out, bias=out == 24, activation_function=torch.nn.Tanh() if out == 24 else None))
        width = out
    modules = [Transformer(str(folder / "base")), Pooling(made.hidden_size, pooling_mode=mode), *layers, Normalize()]
    model = st.SentenceTransformer(modules=modules, prompts={"document": prompt}, device="cpu")
    model.save(str(folder / "embedder"), create_model_card=False)
    return model


def build(folder: Path, variant: str = "text_only", **settings: Any) -> n2kit.Model:
    options: dict[str, Any] = {"head.width": None, "prompt.body_tokens": 400, **settings}
    vision = {} if variant == "text_only" else {"vision": "siglip:tiny", "connector": "mlp:tiny"}
    return n2kit.build(f"file:{folder}", variant=variant, settings=options, **vision)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CASES)
def test_vectors_are_those_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    """Zero-shot, with the embedder's own prompt; and after saving, which writes a folder that both can read."""
    reference = save_embedder(name, tmp_path)
    want = reference.encode_document(TEXTS, normalize_embeddings=True)
    model = build(tmp_path / "embedder")
    np.testing.assert_allclose(model.encode(TEXTS, precision="fp32"), want, atol=1e-5)
    model.save(tmp_path / "bundle")
    again = n2kit.load(tmp_path / "bundle")
    np.testing.assert_array_equal(again.encode(TEXTS, precision="fp32"), model.encode(TEXTS, precision="fp32"))
