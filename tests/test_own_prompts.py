"""Multimodal models with their own prompt: an untrained build gives what transformers gives on the chat's own tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

import n2kit
from n2kit.data.images import open_image
from n2kit.data.items import Item
from n2kit.errors import BadInput
from n2kit.recipe.prompt_templates import TEMPLATES
from n2kit_hf.tiny import byte_tokenizer
from n2kit_mllm import tiny
from n2kit_mllm.tower import patches

PLACE = "<|image|>"  # stands for one visual token in what the test writes
ASK = "\nSummary of the above in one word:"
SYSTEM = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n"
# Component, its architecture, the template, the whole chat with `{image}` and `{text}`, and how its processor writes an image.
CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "qwen3-vl-embedding": (
        "qwen3-vl", tiny.QWEN3, SYSTEM + "<|im_start|>user\n{image}{text}<|im_end|>\n<|im_start|>assistant\n",
        "<|vision_start|>{places}<|vision_end|>",
    ),
    "qwen-vl-chat": (
        "qwen2.5-vl", tiny.QWEN25, "<|im_start|>user\n{image}{text}" + ASK + "<|im_end|>\n<|im_start|>assistant\n",
        "<|vision_start|>{places}<|vision_end|>",
    ),
    "internvl-chat": (
        "internvl", tiny.INTERNVL, "<|im_start|>user\n{image}{text}" + ASK + "<|im_end|>\n<|im_start|>assistant\n",
        "<img>{places}</img>\n",
    ),
    "gemma-3-chat": (
        "gemma-3", tiny.GEMMA3, "<start_of_turn>user\n{image}{text}" + ASK + "<end_of_turn>\n<start_of_turn>model\n",
        "\n\n<start_of_image>{places}<end_of_image>\n\n",
    ),
    "smolvlm-chat": (
        "smolvlm", tiny.SMOLVLM, "<|im_start|>User:{image}{text}" + ASK + "<end_of_utterance>\nAssistant:",
        "<fake_token_around_image><global-img>{places}<fake_token_around_image>",
    ),
}  # fmt: skip
TEXT = "oak chair"


def save_whole(name: str, folder: Path) -> tuple[Any, Any]:
    """Write a random model with a tokenizer that has the chat's special tokens; return both."""
    _, facts, chat, image = CASES[name]
    tokenizer = byte_tokenizer(AutoConfig.for_model("llama", vocab_size=480))
    special = dict.fromkeys([*re.findall(r"<[^<>{}\s]+>", image + chat), PLACE])
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    facts = dict(facts)
    for key in facts:
        if key in ("image_token_id", "image_token_index"):
            facts[key] = ids[PLACE]
    pairs = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>",
             "boi_token_index": "<start_of_image>", "eoi_token_index": "<end_of_image>"}  # fmt: skip
    facts |= {key: ids[token] for key, token in pairs.items() if key in facts}
    torch.manual_seed(1)
    whole = AutoModelForImageTextToText.from_config(AutoConfig.for_model(facts.pop("model_type"), **facts)).eval()
    for parameter in whole.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return whole, tokenizer


def build(name: str, folder: Path, variant: str = "basic") -> n2kit.Model:
    settings: dict[str, Any] = {"head.width": None, "prompt.template": name, "prompt.body_tokens": 300}
    settings |= {"mllm.image_size": 64} if name.startswith("qwen") else {}
    return n2kit.build(mllm=f"{CASES[name][0]}@file:{folder}", variant=variant, settings=settings)


def reference(name: str, whole: Any, tokenizer: Any, text: str, pixels: Any, places: int) -> Any:
    """Compute the state at the chat's last token, by transformers' own forward on the tokens of the chat as one text."""
    _, _, chat, image = CASES[name]
    drawn = "" if pixels is None else image.replace("{places}", PLACE * places)
    if pixels is None and name == "smolvlm-chat":
        drawn = " "  # its chat has a space behind the colon where no image stands
    ids = torch.tensor([tokenizer(chat.replace("{image}", drawn).replace("{text}", text))["input_ids"]])
    place = tokenizer.convert_tokens_to_ids(PLACE)
    seen = (ids == place).long()
    given: dict[str, Any] = {}
    if pixels is not None:
        kind = whole.config.model_type
        if kind.startswith("qwen"):
            vision = whole.config.vision_config
            flat = patches(pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
            side = pixels.shape[-1] // vision.patch_size
            given = {"pixel_values": flat, "image_grid_thw": torch.tensor([[1, side, side]]), "mm_token_type_ids": seen}
        else:
            given = {"pixel_values": pixels[:, None] if kind == "smolvlm" else pixels}
            given |= {"token_type_ids": seen} if kind == "gemma3" else {}
    with torch.no_grad():
        state = whole.model(input_ids=ids, **given).last_hidden_state[:, -1]
    return torch.nn.functional.normalize(state, dim=-1)[0].numpy()


@pytest.mark.parametrize("name", CASES)
def test_an_untrained_build_gives_the_models_own_embedding(name: str, workspace: Path, tmp_path: Path) -> None:
    """Text with an image, the image alone, the text alone: to 1e-5 what transformers computes."""
    whole, tokenizer = save_whole(name, tmp_path)
    model = build(name, tmp_path)
    assert model.vision is not None
    assert model.connector is not None
    wrapped = 2 if name.startswith(("qwen", "gemma")) else 0  # rows of the connector around the visual tokens
    image = workspace / "images" / "noto_3.png"
    pixels = model.vision.transform(open_image(Item("1", image=image.name), image.parent))[None]
    places = model.connector.tokens - wrapped
    for given in ({"title": TEXT, "image": image.name}, {"image": image.name}, {"title": TEXT}):
        shown = pixels if "image" in given else None
        want = reference(name, whole, tokenizer, given.get("title", ""), shown, places)
        got = model.encode(given, images=workspace / "images", precision="fp32")[0]
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_users_special_token_is_text(tmp_path: Path) -> None:
    _, tokenizer = save_whole("qwen3-vl-embedding", tmp_path)
    ids = build("qwen3-vl-embedding", tmp_path).prompt_builder(Item("1", title="oak <|im_end|> chair"), image=False).ids
    assert ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2  # of the system's turn and the user's


def test_a_chat_of_another_model_is_refused() -> None:
    with pytest.raises(BadInput, match="special token <"):
        n2kit.build(mllm="qwen3-vl:tiny", variant="basic", settings={"prompt.template": "gemma-3-chat"})


def test_every_chat_is_tried() -> None:
    assert {name for name, template in TEMPLATES.items() if template.special_tokens} == set(CASES)
