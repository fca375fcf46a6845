"""Language models: every family's card, its padding, its direction, its scale, and what it is saved as."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import n2kit
from n2kit.contract.cards import LLMCard
from n2kit.contract.interfaces import LoadSpec
from n2kit.data.items import Item
from n2kit.errors import BadInput, Mismatch
from n2kit.inputs.reader import Reader
from n2kit.modeling.model import rms
from n2kit.modeling.prompts import IMG
from n2kit.plugins.catalogue import check_card, default_catalogue
from n2kit.plugins.manager import manager
from n2kit_hf import traits
from n2kit_hf.cards import LLMConfig, llm_card
from n2kit_hf.families import GROUPED, SIZE, STATES
from n2kit_hf.llm import TransformersLLM

TINIES = [
    f"{o.spec.name}:{v}"
    for o in manager().components("llm")
    if o.spec.target == "n2kit_hf.llm:TransformersLLM"
    for v in o.spec.presets
    if v.startswith("tiny")
]
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROBERTA = {**SIZE, "max_position_embeddings": 514, "pad_token_id": 1}
GEMMA = {**GROUPED, "head_dim": 8}
# Model types that have no tiny preset, and configurations that change what a type does.
OTHERS: dict[str, dict[str, Any]] = {
    "ministral": {**GROUPED, "head_dim": 8},
    "ministral3": {**GROUPED, "head_dim": 8},
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "gemma": GEMMA,
    "vaultgemma": GEMMA,
    "embeddinggemma": {**GEMMA, "model_type": "gemma3_text", "use_bidirectional_attention": True},
    "phimoe": {**GROUPED, "num_local_experts": 4, "initializer_range": 0.02},
    "olmo": GROUPED,
    "olmo3": GROUPED,
    "olmoe": {**GROUPED, **EXPERTS},
    "glm": {**GROUPED, "head_dim": 8},
    "falcon_mamba": {**STATES, "time_step_rank": 4},
    "qwen2_moe": {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**GROUPED, **EXPERTS, "head_dim": 8},
    **dict.fromkeys(("xlm-roberta", "camembert", "mpnet"), ROBERTA),
    "distilbert": {"vocab_size": 512, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    "electra": {**SIZE, "embedding_size": 16},
    "bert-decoder": {**SIZE, "model_type": "bert", "is_decoder": True},
    "llama-both-ways": {**GROUPED, "model_type": "llama", "is_causal": False},
    "rwkv": {"vocab_size": 512, "hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 7},
    "mpt": {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
    "gpt_oss": {**GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "deberta-v2": SIZE,
}  # fmt: skip
ALL = [*TINIES, *OTHERS]


def config_of(name: str) -> LLMConfig:
    if name in OTHERS:
        return LLMConfig(config={"model_type": name, **OTHERS[name]})
    made: LLMConfig = default_catalogue().resolve("llm", name).config()
    return made


def make(name: str, **options: Any) -> TransformersLLM:
    return TransformersLLM.create(LoadSpec(config_of(name).model_copy(update=options)))


@functools.cache
def part(name: str) -> TransformersLLM:
    return make(name)


def rows(llm: TransformersLLM, count: int = 2, length: int = 12) -> Tensor:
    """[count, length, De], and no row like another."""
    ids = torch.randint(llm.card.vocab, (count, length), generator=torch.Generator().manual_seed(0))
    return llm.embed(ids).detach()


def read(llm: TransformersLLM, x: Tensor, real: list[int] | None = None) -> Tensor:
    """States of rows of which so many positions are `real`."""
    lengths = torch.tensor(real or [x.shape[1]] * len(x))
    mask = torch.arange(x.shape[1])[None] < lengths[:, None]
    return llm(x, **{"mask": mask} if "mask" in llm.extra_inputs else {})


def test_every_model_type_that_a_family_names_is_tried() -> None:
    specs = [o.spec for o in manager().components("llm") if o.spec.target == "n2kit_hf.llm:TransformersLLM"]
    tried = {config_of(name).config["model_type"] for name in ALL}  # type: ignore[index]
    assert {t for spec in specs for t in spec.model_types} - {"*"} <= tried


@pytest.mark.parametrize("name", TINIES)
def test_declared_card_is_what_is_measured(name: str) -> None:
    card = part(name).card
    check_card(name, default_catalogue().resolve("llm", name).declared, card)
    assert card.parameters < 100_000


@pytest.mark.parametrize("name", ALL)
def test_rows_that_begin_alike_can_be_read_behind_their_start(name: str) -> None:
    """The same states, and the same gradients of the start and of what stands behind it; or the part says that it cannot."""
    llm = make(name).eval()
    kind = config_of(name).config["model_type"]  # type: ignore[index]
    whole = traits.NO_ATTENTION | {"lfm2"}  # whose memory of a row is more than keys and values
    assert llm.supports_prefix_cache == (llm.card.causal and kind not in whole)
    if not llm.supports_prefix_cache:
        return
    start, behind = (t.requires_grad_() for t in (rows(llm, 1, 7), rows(llm, 3, 9)))
    weights = torch.arange(3 * 9 * llm.card.output_width).sin().view(3, 9, -1)
    found = []
    for states in (
        llm(torch.cat([start.expand(3, -1, -1), behind], 1))[:, 7:],
        llm(1 * behind, past=llm.prefill(1 * start)),
    ):
        found.append([states, *torch.autograd.grad((states * weights).sum(), [start, behind])])
    for one, two in zip(*found, strict=True):
        assert (one - two).abs().max() <= 1e-5 * one.abs().max().clamp_min(1)


@pytest.mark.parametrize("name", ALL)
def test_card_from_a_folder_is_what_is_measured(name: str, tmp_path: Path) -> None:
    part(name).save(tmp_path)
    check_card(name, llm_card(LLMConfig(), lambda: tmp_path), part(name).card)


@pytest.mark.parametrize("name", [name for name in ALL if name != "embeddinggemma"])  # which has no head
def test_a_checkpoint_with_its_head_gives_the_same_card(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    llm = part(name)
    head: Any = AutoModelForCausalLM if llm.card.causal or "llama" in name else AutoModelForMaskedLM
    head.from_config(llm.model.config).save_pretrained(tmp_path)
    llm.tokenizer.save_pretrained(tmp_path)
    check_card(name, llm_card(LLMConfig(), lambda: tmp_path), llm.card)
    assert TransformersLLM.create(LoadSpec(LLMConfig(), tmp_path)).card == llm.card


@pytest.mark.parametrize("name", ALL)
def test_a_padded_row_in_a_batch_is_the_row_alone(name: str) -> None:
    llm = part(name)
    x = rows(llm, 3)
    x[1, 9:] = 100 * torch.randn(3, x.shape[2])
    with torch.no_grad():
        together = read(llm, x, [12, 9, 12])
        torch.testing.assert_close(read(llm, x[1:2, :9])[0], together[1, :9], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read(llm, x[:1])[0], together[0], atol=1e-5, rtol=1e-5)
    assert together.shape == (3, 12, llm.card.output_width)
    assert x.shape[2] == llm.card.input_width


@pytest.mark.parametrize("name", ALL)
def test_later_tokens_are_seen_by_those_that_read_both_ways_alone(name: str) -> None:
    llm = part(name)
    x = rows(llm)
    other = x.clone()
    other[:, -1] = rows(llm, 3)[2:, 0]
    with torch.no_grad():
        leak = (read(llm, x) - read(llm, other))[:, :-1].abs().max().item()
    assert (leak < 1e-5) == llm.card.causal
    assert llm.extra_inputs == (frozenset() if llm.card.causal else {"mask"})


@pytest.mark.parametrize("name", ALL)
def test_a_gradient_reaches_every_embedding(name: str) -> None:
    llm = part(name)
    x = rows(llm).requires_grad_()
    (gradient,) = torch.autograd.grad((read(llm, x)[:, -1] * torch.randn(llm.card.output_width)).sum(), x)
    assert gradient.isfinite().all()
    reached = gradient.abs().amax(-1) > 0
    assert reached.all()


@pytest.mark.parametrize("name", ALL)
def test_blocks_are_the_layers(name: str) -> None:
    assert len(part(name).blocks()) == part(name).card.layers


@pytest.mark.parametrize("name", ALL)
def test_saved_and_loaded_bit_equal(name: str, tmp_path: Path) -> None:
    llm = part(name)
    x = rows(llm)
    with torch.no_grad():
        want = read(llm, x)
        llm.save(tmp_path)
        again = TransformersLLM.load(tmp_path)
        assert torch.equal(read(again, x), want)
    assert again.card == llm.card
    assert again.model.config._attn_implementation == llm.model.config._attn_implementation
    weights = again.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in llm.state_dict().items())


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_is_the_same_but_for_rounding(name: str) -> None:
    llm = make(name)
    x = rows(llm)
    with torch.no_grad():
        want = read(llm, x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = read(llm, x)
        narrow = read(llm.to(torch.bfloat16), x.bfloat16())
    assert (mixed.dtype, narrow.dtype) == (torch.float32, torch.bfloat16)
    for other in (mixed, narrow.float()):
        assert torch.cosine_similarity(other.flatten(), want.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("name", TINIES)
def test_visual_tokens_enter_the_first_layer_at_the_scale_of_text(name: str, workspace: Path) -> None:
    """Granite multiplies embeddings in its forward, Gemma in its table, BERT normalises them, GPT-2 adds positions."""
    variant = "notellm2" if part(name).card.causal else "late_early_fusion"
    model = n2kit.build(name, "siglip:tiny", connector="mlp:tiny", variant=variant)
    batch, _ = Reader(model.prompt_builder, model.vision, workspace / "images")(
        [Item("1", image="noto_1.png", title="a b")]
    )
    seen: list[Tensor] = []
    model.llm.blocks()[0].register_forward_pre_hook(
        lambda _, args, facts: seen.append(args[0] if args else facts["hidden_states"]), with_kwargs=True
    )
    with torch.no_grad():
        model(batch)
    image = batch.ids == IMG
    assert 1 / 3 < (rms(seen[0][image]) / rms(seen[0][~image])).item() < 3


@pytest.mark.parametrize("name", ALL)
def test_every_implementation_of_attention_gives_the_same_states(name: str) -> None:
    llm = part(name)
    assert llm.card.attention == traits.attention_of(llm.model.config.model_type)
    if llm.card.attention:
        assert llm.model.config._attn_implementation == llm.card.attention[0]
    for choice in ("sdpa", "eager"):
        if choice not in llm.card.attention:
            with pytest.raises(Mismatch, match=f"attention {choice} was asked for"):
                make(name, attention=choice)
            continue
        chosen = make(name, attention=choice)
        assert chosen.model.config._attn_implementation == choice
        with torch.no_grad():
            torch.testing.assert_close(read(chosen, rows(llm)), read(llm, rows(llm)), atol=1e-5, rtol=1e-4)


def test_an_impossible_attention_is_refused_by_the_plan() -> None:
    for name, there in (("gemma:tiny", "has eager"), ("mamba:tiny", "has no attention to choose")):
        with pytest.raises(Mismatch, match=f"attention sdpa was asked for, and llm {name} {there}"):
            n2kit.build(name, "siglip:tiny", connector="mlp:tiny", settings={"llm.attention": "sdpa"})


@pytest.mark.parametrize("model_type", ["gemma3n_text", "gemma4_text"])
def test_a_second_embedding_by_token_id_is_refused(model_type: str) -> None:
    per_layer = {"vocab_size_per_layer_input": 512, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0}
    config = {**GEMMA, "model_type": model_type, **per_layer, "layer_types": ["sliding_attention", "full_attention"]}
    config |= {"laurel_rank": 4, "activation_sparsity_pattern": [0.0, 0.0]} if "3n" in model_type else {}
    assert not llm_card(LLMConfig(config=config), lambda: None).embeds
    with pytest.raises(Mismatch, match="reads token ids alone"):
        n2kit.build("hf:tiny", "siglip:tiny", connector="mlp:tiny", settings={"llm.config": config})
    with pytest.raises(Mismatch, match="it reads token ids"):
        TransformersLLM.create(LoadSpec(LLMConfig(config=config)))


def test_an_encoder_with_a_decoder_is_refused() -> None:
    config = {"model_type": "t5", "vocab_size": 512, "d_model": 32, "num_layers": 2, "is_encoder_decoder": True}
    with pytest.raises(BadInput, match="an encoder with a decoder"):
        llm_card(LLMConfig(config=config), lambda: None)
    with pytest.raises(Mismatch, match="cannot be joined"):
        TransformersLLM.create(LoadSpec(LLMConfig(config={**config, "d_kv": 8, "d_ff": 64, "num_heads": 4})))


def test_the_context_of_positions_behind_the_padding_can_be_used() -> None:
    """RoBERTa's table of 514 rows holds 512 positions."""
    llm = part("bert:tiny-roberta")
    assert llm.card.context == 512
    with torch.no_grad():
        assert read(llm, rows(llm, 1, 512)).isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            read(llm, rows(llm, 1, 513))


def test_opt_gives_states_as_wide_as_its_embeddings() -> None:
    card = part("opt:tiny").card
    assert (card.input_width, card.output_width) == (16, 16)
    assert (part("electra").card.input_width, part("electra").card.output_width) == (16, 32)


@pytest.mark.parametrize("name", ["bert:tiny", "bert:tiny-roberta", "bert:tiny-modern"])
def test_an_encoder_embeds_a_batch_as_it_embeds_an_item(name: str, workspace: Path) -> None:
    model = n2kit.build(name, "siglip:tiny", connector="mlp:tiny", variant="late_early_fusion")
    items = [
        Item("long", image="noto_1.png", title="word " * 12),
        Item("text", title="no picture"),
        Item("image", image="noto_2.png"),
    ]
    options: dict[str, Any] = {"images": workspace / "images", "precision": "fp32"}
    together = torch.from_numpy(model.encode(items, **options))
    for row, item in enumerate(items):
        torch.testing.assert_close(
            torch.from_numpy(model.encode([item], **options))[0], together[row], atol=2e-6, rtol=0
        )
    with pytest.raises(Mismatch, match="needs a causal LLM"):
        n2kit.build(name, "siglip:tiny", connector="mlp:tiny", variant="notellm2")


def test_cards_of_the_catalogue_fit_their_architectures() -> None:
    """Facts that a registry entry could forget: they have defaults."""
    for name in default_catalogue().aliases["llm"]:
        for preset in default_catalogue().aliases["llm"][name]["presets"]:
            component = default_catalogue().resolve("llm", f"{name}:{preset}")
            tinies = [v.card for v in component.registered.spec.presets.values() if isinstance(v.card, LLMCard)]
            assert isinstance(component.declared, LLMCard)
            assert component.declared.attention in {card.attention for card in tinies}, component.reference
            encodes = component.registered.spec.name == "bert" or component.reference == "gemma:embedding-300m"
            assert component.declared.causal != encodes
