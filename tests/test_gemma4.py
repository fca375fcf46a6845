"""Gemma 4 and EmbeddingGemma 2: embeddings of layers beside, or out of, the first one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import n2kit
from n2kit.contract.interfaces import LoadSpec
from n2kit.errors import BadInput, Mismatch
from n2kit.plugins.catalogue import check_card, default_catalogue
from n2kit_hf.cards import LLMConfig, gemma4_card, llm_card
from n2kit_hf.families import GEMMA4, GROUPED
from n2kit_hf.llm import TransformersLLM
from n2kit_mllm import tiny

EMBEDDER = {
    **GROUPED, "model_type": "embedding_gemma2_text", "head_dim": 8, "global_head_dim": 16, "embedding_dim": 24,
    "hidden_size_per_layer_input": 8, "sliding_window": 16, "pad_token_id": 0,
    "layer_types": ["sliding_attention", "full_attention"],
}  # fmt: skip


@pytest.mark.parametrize("name", ["gemma-4:tiny", "gemma-4:tiny-31b"])
def test_states_are_those_of_token_ids(name: str, tmp_path: Path) -> None:
    """Embeddings carry all that transformers looks up by id; also in a folder that was saved and loaded."""
    component = default_catalogue().resolve("llm", name)
    part = component.cls().create(LoadSpec(component.config()))
    ids = torch.randint(1, 512, (2, 20), generator=torch.Generator().manual_seed(0))
    part.save(tmp_path)
    with torch.no_grad():
        want = part.model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(part(part.embed(ids)), want, atol=1e-6, rtol=0)
        again = type(part).load(tmp_path)
        assert torch.equal(again(again.embed(ids)), part(part.embed(ids)))
    check_card(name, gemma4_card(LLMConfig(), lambda: tmp_path), part.card)


def test_it_joins_any_encoder_and_learns(workspace: Path, tmp_path: Path) -> None:
    settings = {"head.width": 16, "llm.tune": "lora:4", "prompt.template": "compact"}
    model = n2kit.build("gemma-4:tiny", "siglip:tiny", connector="mlp:tiny", settings=settings)
    model.save(tmp_path / "start")
    run = n2kit.train(
        tmp_path / "start", workspace / "items.jsonl", workspace / "train.csv", images=workspace / "images",
        out=tmp_path / "run", max_steps=2, batch_size=4, lr=0.1,
    )  # fmt: skip
    item = {"title": "x", "image": "noto_3.png"}
    before, after = (one.encode(item, images=workspace / "images") for one in (model, n2kit.load(run.bundle)))
    assert np.abs(after - before).max() > 1e-3


def test_another_component_says_why_it_cannot(tmp_path: Path) -> None:
    """As a plain language model it would need token ids."""
    part = TransformersLLM.create(LoadSpec(LLMConfig(config={"model_type": "llama", **GROUPED})))
    part.save(tmp_path)
    with pytest.raises(Mismatch, match="reads token ids"):
        TransformersLLM.create(LoadSpec(LLMConfig(config=GEMMA4)))
    config = dict(tiny.GEMMA4)
    del config["vision_config"]
    with pytest.raises(BadInput, match="has no vision_config"):
        n2kit.build(mllm="gemma-4:tiny", variant="basic", settings={"mllm.config": config})


def test_embedding_gemma_2_computes_its_second_embeddings() -> None:
    """Out of the first ones, so that it reads embeddings as others do: both ways, with a projection behind its norm."""
    part = TransformersLLM.create(LoadSpec(LLMConfig(config=EMBEDDER)))
    ids = torch.randint(1, 512, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = part.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        torch.testing.assert_close(part(part.embed(ids), mask=torch.ones_like(ids) > 0), want, atol=1e-6, rtol=0)
    card = llm_card(LLMConfig(config=EMBEDDER), lambda: None)
    assert (card.causal, card.output_width, card.embeds) == (False, 24, True)
    assert (part.card.causal, part.card.output_width, part.card.input_width) == (False, 24, 32)


def test_pictures_are_cut_as_its_processor_does() -> None:
    processing: Any = pytest.importorskip("transformers.models.gemma4.image_processing_pil_gemma4")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    component = default_catalogue().resolve("mllm", "gemma-4:tiny")
    vision = component.cls().create(LoadSpec(component.config())).vision
    pixels = vision.transform(Image.fromarray(noise))
    flat = processing.convert_image_to_patches(pixels.numpy(), 8)
    seen: list[torch.Tensor] = []
    hook = vision.model.register_forward_pre_hook(lambda _, args: seen.extend(args))
    vision(pixels[None])
    hook.remove()
    torch.testing.assert_close(seen[0][0], torch.from_numpy(flat))
    torch.testing.assert_close(pixels, torch.from_numpy(noise).permute(2, 0, 1) / 255)
    assert seen[1][0, :9].tolist() == [[x, 0] for x in range(8)] + [[0, 1]]
