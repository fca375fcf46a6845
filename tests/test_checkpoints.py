"""Checkpoints as the world saves them: read as they are meant, or refused with the true reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

import n2kit
from n2kit.errors import BadInput, N2kitError, Unavailable
from n2kit.planning.planner import make_plan
from n2kit.plugins.catalogue import default_catalogue
from n2kit.recipe.settings import resolve
from n2kit_hf.image_families import HALF
from n2kit_hf.image_processor import read_processing
from n2kit_hf.tiny import byte_tokenizer

LLAMA: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
    "initializer_range": 0.2,
}  # fmt: skip
ITEMS = [{"title": "oak chair", "content": "made of oak"}, {"title": "red lamp"}]


def saved(folder: Path, dtype: torch.dtype | None = None, **settings: Any) -> Any:
    config = AutoConfig.for_model("llama", **{**LLAMA, **settings})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model = model.to(dtype) if dtype else model
    model.save_pretrained(folder)
    byte_tokenizer(AutoConfig.for_model("llama", **LLAMA)).save_pretrained(folder)
    return model


def built(folder: Path, **settings: Any) -> n2kit.Model:
    return n2kit.build(f"file:{folder}", variant="text_only", settings=settings)


def vectors(folder: Path, **settings: Any) -> np.ndarray:
    return built(folder, **settings).encode(ITEMS, precision="fp32")


def problem(folder: Path, kind: type[N2kitError] = BadInput, **settings: Any) -> N2kitError:
    with pytest.raises(kind) as caught:
        vectors(folder, **settings)
    return caught.value


# ---- weights


def test_float16_weights_compute_in_bf16_and_are_saved_as_they_were(tmp_path: Path) -> None:
    saved(tmp_path / "m", torch.float16)
    model = built(tmp_path / "m")
    close = model.encode(ITEMS, precision="bf16") @ built(tmp_path / "m").encode(ITEMS, precision="fp32").T
    assert np.diag(close).min() > 0.99
    model.save(tmp_path / "bundle")
    (file,) = (tmp_path / "bundle").glob("llm/*.safetensors")
    assert {t.dtype for t in load_file(file).values()} == {torch.float16}


def test_states_that_pass_float16_are_tried_in_float32(tmp_path: Path) -> None:
    saved(tmp_path, torch.float16)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"] *= 2e4
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert np.isfinite(vectors(tmp_path)).all()


def test_a_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "layers.0.mlp.down_proj.weight: 1 of 2048 numbers are NaN or infinite" in problem(tmp_path).message


def test_weights_that_are_there_twice_count_once(tmp_path: Path) -> None:
    def planned() -> int:
        recipe = resolve({"llm": f"file:{tmp_path}", "variant": "text_only"}, env={}).recipe
        return make_plan(recipe).llm.parameters

    model = saved(tmp_path)
    alone = planned()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert planned() == alone
    model.half().save_pretrained(tmp_path, variant="fp16")
    assert planned() == alone == built(tmp_path).llm.card.parameters


def test_tied_weights_that_are_kept_as_the_head_s(tmp_path: Path) -> None:
    model = saved(tmp_path, tie_word_embeddings=True)
    expected = vectors(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(vectors(tmp_path), expected)
    assert built(tmp_path).llm.card.parameters == sum(p.numel() for p in model.model.parameters())


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 600}))
    assert "embed_tokens.weight is [512, 32] in the weights, and [600, 32] by config.json" in problem(tmp_path).message


def test_quantised_weights_say_which_package_they_need(tmp_path: Path, cli: Any) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "vptq"}}))
    assert "pip install vptq" in problem(tmp_path, Unavailable).hint
    assert cli("plan", "--llm", f"file:{tmp_path}", "--variant", "text_only").code == 3


# ---- adapters


@pytest.fixture
def adapted(tmp_path: Path) -> Path:
    """base/, adapter/, and merged/: the one with the other in its weights."""
    base = saved(tmp_path / "base")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(tmp_path / "adapter")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    byte_tokenizer(base.config).save_pretrained(tmp_path / "merged")
    return tmp_path


def test_an_adapter_is_put_into_its_base(adapted: Path, tmp_path: Path, cli: Any) -> None:
    expected = vectors(adapted / "merged")
    assert np.abs(vectors(adapted / "base") - expected).max() > 0.01
    np.testing.assert_allclose(
        vectors(adapted / "base", **{"llm.adapter": str(adapted / "adapter")}), expected, atol=1e-6
    )
    given = ("--llm", f"file:{adapted / 'base'}", "--adapter", adapted / "adapter", "--variant", "text_only")
    done = cli("build", *given, "-o", tmp_path / "bundle", "--by-reference")
    assert done.code == 0, done.err
    assert "llm is copied" in done.err
    shutil.rmtree(adapted / "adapter")
    np.testing.assert_allclose(n2kit.load(tmp_path / "bundle").encode(ITEMS, precision="fp32"), expected, atol=1e-6)


def test_an_adapter_is_never_applied_unasked(adapted: Path) -> None:
    assert "is an adapter, and no model" in problem(adapted / "adapter").message
    for file in (adapted / "adapter").glob("adapter_*"):
        shutil.copy(file, adapted / "merged")
    found = problem(adapted / "merged")
    assert "holds an adapter (adapter_config.json) beside full weights (model.safetensors)" in found.message


def test_adapters_of_other_kinds_are_merged_or_refused_for_what_they_are(tmp_path: Path) -> None:
    base, with_dora, prompts = tmp_path / "base", tmp_path / "dora", tmp_path / "prompts"
    model = get_peft_model(
        saved(base), LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, task_type="CAUSAL_LM")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    model.save_pretrained(with_dora)
    merged = model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    byte_tokenizer(merged.config).save_pretrained(tmp_path / "merged")
    found = vectors(base, **{"llm.adapter": str(with_dora)})
    np.testing.assert_allclose(found, vectors(tmp_path / "merged"), atol=1e-6)
    get_peft_model(saved(base), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(
        prompts
    )
    assert "PROMPT_TUNING, which adds tokens" in problem(base, **{"llm.adapter": str(prompts)}).message
    file = with_dora / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    assert "has numbers that are NaN" in problem(base, **{"llm.adapter": str(with_dora)}).message
    file.rename(with_dora / "adapter_model.bin")
    assert "n2kit opens no pickles" in problem(base, **{"llm.adapter": str(with_dora)}).message


def test_an_adapter_of_another_model_is_refused(adapted: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="random weights are no base of it"):
        n2kit.build("llama:tiny", variant="text_only", settings={"llm.adapter": str(adapted / "adapter")})
    saved(tmp_path / "wide", hidden_size=64)
    for base, folder in ((tmp_path / "wide", adapted / "adapter"), (adapted / "base", adapted / "merged")):
        problem(base, **{"llm.adapter": str(folder)})


# ---- towers beside a language model


TOWER = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
}  # fmt: skip
GEMMA_TEXT = {**LLAMA, "head_dim": 8, "model_type": "gemma3_text"}


def test_the_tower_beside_a_language_model_is_left_out(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gemma3", text_config=GEMMA_TEXT, vision_config=TOWER, mm_tokens_per_image=4)
    whole = AutoModelForImageTextToText.from_config(config)
    whole.save_pretrained(tmp_path)
    byte_tokenizer(config).save_pretrained(tmp_path)
    assert f'llm="hf@file:{tmp_path}" takes its language model alone' in (problem(tmp_path).hint or "")
    model = n2kit.build(f"hf@file:{tmp_path}", variant="text_only", settings={"llm.tune": "last:1"})
    inner = whole.model.language_model
    assert model.llm.card.parameters == sum(p.numel() for p in inner.parameters())
    last = sum(p.numel() for module in (inner.layers[-1], inner.norm) for p in module.parameters())
    assert sum(p.numel() for p in model.llm.parameters() if p.requires_grad) == last
    x = model.llm.embed(torch.arange(1, 9)[None])
    with torch.no_grad():
        expected = whole.eval().model(inputs_embeds=x).last_hidden_state
        torch.testing.assert_close(model.llm(x), expected)


def test_a_loss_that_generates_keeps_the_head_and_no_tower(tmp_path: Path) -> None:
    config = AutoConfig.for_model("gemma3", text_config=GEMMA_TEXT, vision_config=TOWER, mm_tokens_per_image=4)
    whole = AutoModelForImageTextToText.from_config(config).eval()
    whole.save_pretrained(tmp_path / "m")
    byte_tokenizer(config).save_pretrained(tmp_path / "m")
    model = n2kit.build(f"hf@file:{tmp_path / 'm'}", variant="text_only", loss="notellm")
    model.save(tmp_path / "b")
    names = load_file(tmp_path / "b" / "llm" / "model.safetensors")
    assert not any("vision" in name or "projector" in name for name in names)
    again = n2kit.load(tmp_path / "b")
    x = model.llm.embed(torch.arange(1, 9)[None])
    with torch.no_grad():
        expected = whole(inputs_embeds=x).logits
        for one in (model, again):
            torch.testing.assert_close(one.llm.logits(one.llm(x)), expected, atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(again.encode(ITEMS, precision="fp32"), model.encode(ITEMS, precision="fp32"))


def test_several_sets_of_weights_in_a_folder_are_said(tmp_path: Path, cli: Any) -> None:
    saved(tmp_path)
    for name in ("pytorch_model.bin", "consolidated-00001-of-00002.safetensors", "training_args.bin"):
        (tmp_path / name).write_bytes(b"x")
    done = cli("plan", "--llm", f"file:{tmp_path}", "--variant", "text_only")
    assert done.code == 0, done.err
    said = (
        "holds several sets of weights: model.safetensors is read, not consolidated-*.safetensors or pytorch_model.bin"
    )
    assert said in done.err


# ---- tokenizers and files


def test_a_tokenizer_with_more_tokens_than_the_table_is_refused_at_build(tmp_path: Path, cli: Any) -> None:
    saved(tmp_path / "m", vocab_size=300)
    done = cli("build", "--llm", f"file:{tmp_path / 'm'}", "--variant", "text_only", "-o", tmp_path / "b")
    assert done.code == 2
    assert "largest id is 410, and the model's table has 300 rows" in done.err


@pytest.mark.parametrize(
    "model",
    [{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}, {"type": "BPE", "vocab": {}, "merges": []}],
)
def test_a_tokenizer_that_cannot_read_a_prompt_is_refused(model: dict[str, Any], tmp_path: Path) -> None:
    saved(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    plain = {"added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    file.write_text(json.dumps({**content, **plain, "model": model}))
    assert "tokenizer" in problem(tmp_path).message


def cut_shard(folder: Path, model: Any) -> None:
    sharded(folder, model)
    file = sorted(folder.glob("model-*.safetensors"))[2]
    file.write_bytes(file.read_bytes()[:-100])


def sharded(folder: Path, model: Any) -> None:
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")


def lost_shard(folder: Path, model: Any) -> None:
    sharded(folder, model)
    sorted(folder.glob("model-*.safetensors"))[2].unlink()


def lost_index(folder: Path, model: Any) -> None:
    sharded(folder, model)
    (folder / "model.safetensors.index.json").unlink()


def pointed_index(folder: Path, model: Any) -> None:
    sharded(folder, model)
    (folder / "model.safetensors.index.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def half_alone(folder: Path, model: Any) -> None:
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")


def pickle_alone(folder: Path, model: Any) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def packed(folder: Path, model: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"] = tensors["model.layers.0.mlp.down_proj.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def own_code(folder: Path, model: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mine", "auto_map": {"AutoConfig": "x.C"}}))
    (folder / "x.py").write_text("raise SystemExit('it ran')")


def odd_tokenizer(folder: Path, model: Any) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Nope"}}')


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (cut_shard, "model-00003-of-00007.safetensors: cut short by 100 bytes", "copy or download"),
        (lost_shard, "lacks 1 file of 7 that model.safetensors.index.json names, the first is model-00003", "copy or"),
        (pointed_index, "model.safetensors.index.json: a pointer of git-lfs", "git lfs pull"),
        (lost_index, "model-00001-of-00007.safetensors, and lacks model.safetensors.index.json", "copy or download"),
        (half_alone, "holds no model.safetensors, but model.fp16.safetensors", "rename it"),
        (pickle_alone, "holds its weights in pytorch_model.bin alone, and n2kit opens no pickles", "save it again"),
        (packed, "model.layers.0.mlp.down_proj.weight is I8, and its config.json names no quantization", "config.json"),
        (own_code, "model_type 'mine' needs code of its own, and n2kit runs no code", "another model"),
        (odd_tokenizer, "no tokenizer that transformers can read: KeyError", "add tokenizer.json"),
    ],
)
def test_what_a_folder_lacks_is_named(spoil: Any, message: str, hint: str, tmp_path: Path) -> None:
    spoil(tmp_path, saved(tmp_path))
    found = problem(tmp_path)
    assert message in found.message
    assert hint in found.hint


def test_a_pointer_in_a_file_s_place_is_named(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    found = problem(tmp_path)
    assert "tokenizer.json: a pointer of git-lfs" in found.message
    assert "git lfs pull" in found.hint


# ---- image processing


def processing(folder: Path, **content: Any) -> Any:
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return read_processing(folder, HALF)


def test_processing_inside_processor_config_counts(tmp_path: Path) -> None:
    inside = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 36}, "crop_size": 32}
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": inside | {"image_mean": [0.1, 0.2, 0.3]}})
    )
    found = read_processing(tmp_path, HALF)
    assert (found.size, found.resize, found.mean) == (32, 36, (0.1, 0.2, 0.3))


def test_rescaling_and_the_class_s_own_resampling_are_honoured(tmp_path: Path) -> None:
    double = processing(tmp_path, size=32, image_mean=[0.2] * 3, image_std=[0.5] * 3, rescale_factor=2 / 255)
    assert (double.mean, double.std) == ((0.1,) * 3, (0.25,) * 3)
    raw = processing(tmp_path, size=32, image_mean=[127.5] * 3, image_std=[255] * 3, do_rescale=False)
    np.testing.assert_allclose([*raw.mean, *raw.std], [0.5] * 3 + [1] * 3)
    for kind, number in (("ViTImageProcessor", 2), ("CLIPImageProcessor", 3), ("DINOv3ViTImageProcessorFast", 2)):
        assert processing(tmp_path, size=32, image_processor_type=kind).resample == number


@pytest.mark.parametrize(
    "content",
    [
        {"size": {"height": 32, "width": 48}},
        {"size": 64, "do_center_crop": True, "crop_size": [32, 48]},
        {"size": {"longest_edge": 64}},
        {"size": 32, "image_std": [0.5, 0, 0.5]},
        {"size": 32, "do_resize": False},
        {"size": {"shortest_edge": 32}, "do_center_crop": False},
        {"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": 32},
        {"size": 32, "do_pad": True, "pad_size": {"height": 64, "width": 64}},
    ],
)
def test_what_cannot_be_honoured_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"preprocessor_config\.json: "):
        processing(tmp_path, **content)


def test_one_value_for_all_colours_and_no_filter_are_the_usual_ones(tmp_path: Path) -> None:
    found = processing(tmp_path, size=32, image_mean=0.5, image_std=0.25, resample=None)
    assert (found.mean, found.std, found.resample) == ((0.5,) * 3, (0.25,) * 3, 3)


def test_weights_of_a_tower_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    vision = n2kit.builder.load_backbone(default_catalogue().resolve("vision", "clip:tiny"))
    vision.model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if name.endswith("q_proj.weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"q_proj\.weight: 1 of 1024 numbers are NaN or infinite"):
        n2kit.builder.load_backbone(default_catalogue().resolve("vision", f"file:{tmp_path}"))


# ---- folders of timm and of open_clip


def test_a_folder_of_timm_is_read_as_it_says(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", pretrained=False, num_classes=3)
    model.pretrained_cfg.update(mean=(0.1, 0.2, 0.3), std=(0.7, 0.8, 0.9), crop_pct=0.9, interpolation="bilinear")
    save_for_hf(model, tmp_path, safe_serialization=True)
    model.reset_classifier(0)
    stated = timm.data.resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path}", pretrained=False))
    pixels = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    for reference in (f"timm:test_vit@file:{tmp_path}", f"file:{tmp_path}"):
        component = default_catalogue().resolve("vision", reference)
        vision = n2kit.builder.load_backbone(component)
        assert component.card() == vision.card
        assert (vision.image_transform.mean, vision.image_transform.std) == (
            tuple(stated["mean"]),
            tuple(stated["std"]),
        )
        assert (vision.image_transform.resize, vision.image_transform.resample) == (177, 2)
        with torch.no_grad():
            torch.testing.assert_close(vision(pixels).pooled, model.eval()(pixels))
        (copy := tmp_path / reference.partition(":")[0]).mkdir()
        vision.save(copy)
        assert type(vision).load(copy).card == vision.card


def test_a_folder_of_open_clip_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}}')
    assert default_catalogue().resolve("vision", f"file:{tmp_path}").registered.spec.name == "open_clip"
