"""Multimodal LLMs of transformers, taken apart into language model, tower and connector."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from n2kit.contract import MLLM, Connector, DecomposedMLLM, LoadSpec
from n2kit_hf.llm import TransformersLLM
from n2kit_mllm.cards import BLIP2, GEMMA3, GEMMA4, INTERNVL, LLAVA, QWEN, QWEN3, SMOLVLM, Family, dropped
from n2kit_mllm.config import NormConfig, PoolConfig, ProjectorConfig, QueryConfig, ShuffleConfig, WrapConfig
from n2kit_mllm.connectors import Blip2QFormer, Gemma4Projector, GemmaProjector, LlavaProjector, ShuffleProjector, Wrap
from n2kit_mllm.gemma4 import Gemma4Tower
from n2kit_mllm.text import DEEP_LAYERS, Gemma4Text, GemmaText, Qwen3Text, QwenText
from n2kit_mllm.tower import (
    Blip2Tower,
    GemmaTower,
    InternVLTower,
    LlavaTower,
    MLLMTower,
    Qwen3Tower,
    QwenTower,
    SmolVLMTower,
)
from n2kit_mllm.whole import whole_model


class TakenApart(MLLM):
    """Loads the whole once and keeps its three parts; the language model head is left behind."""

    family: ClassVar[Family]
    llm: ClassVar[type[TransformersLLM]]
    vision: ClassVar[type[MLLMTower]]

    @classmethod
    def create(cls, spec: LoadSpec) -> DecomposedMLLM:
        whole, tokenizer = whole_model(spec, cls.family)
        text, tower = cls.halves(whole)
        if spec.config.attention is not None:
            text.set_attn_implementation(spec.config.attention)
        llm = cls.llm(text, tokenizer)
        vision = cls.vision.of(tower, whole.config, spec)
        # Like n2kit's own connectors, in float32 whatever the backbones are.
        return DecomposedMLLM(llm, vision, cls.between(whole, spec, llm, vision).float().eval())

    @staticmethod
    @abstractmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        """Return the language model without its head, and the tower."""

    @staticmethod
    @abstractmethod
    def between(whole: Any, spec: LoadSpec, llm: TransformersLLM, vision: MLLMTower) -> Connector:
        """Build the connector with its trained weights."""


class QwenVL(TakenApart):
    """Qwen2-VL (arXiv 2409.12191) and Qwen2.5-VL (arXiv 2502.13923)."""

    family, llm, vision, connector = QWEN, QwenText, QwenTower, Wrap

    @staticmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        return whole.model.language_model, whole.model.visual

    @staticmethod
    def between(whole: Any, spec: LoadSpec, llm: TransformersLLM, vision: MLLMTower) -> Connector:
        made = Wrap(WrapConfig(), vision=vision.card, llm=llm.card)
        ids = torch.tensor([[whole.config.vision_start_token_id, whole.config.vision_end_token_id]])
        made.rows.data.copy_(llm.embed(ids)[0].detach())
        return made


class Qwen3VL(QwenVL):
    """Qwen3-VL and Qwen3-VL-Embedding (arXiv 2511.21631)."""

    family, llm, vision = QWEN3, Qwen3Text, Qwen3Tower

    @staticmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        setattr(
            whole.model.language_model.config, DEEP_LAYERS, len(whole.config.vision_config.deepstack_visual_indexes)
        )
        return whole.model.language_model, whole.model.visual


class Gemma3(TakenApart):
    """Gemma 3 (arXiv 2503.19786): its 4B, 12B and 27B."""

    family, llm, vision, connector = GEMMA3, GemmaText, GemmaTower, GemmaProjector

    @staticmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        return whole.model.language_model, whole.model.vision_tower

    @staticmethod
    def between(whole: Any, spec: LoadSpec, llm: TransformersLLM, vision: MLLMTower) -> Connector:
        config, trained = whole.config, whole.model.multi_modal_projector
        options = PoolConfig(tokens=config.mm_tokens_per_image, eps=config.vision_config.layer_norm_eps)
        made = GemmaProjector(options, vision=vision.card, llm=llm.card)
        made.norm_weight.data.copy_(trained.mm_soft_emb_norm.weight)
        made.projection.data.copy_(trained.mm_input_projection_weight)
        if spec.path is None:  # transformers starts it at zero, and no picture would matter
            std = vision.card.token_width**-0.5
            nn.init.normal_(made.projection, std=std, generator=torch.Generator().manual_seed(spec.config.seed))
        made.rows.data.copy_(llm.embed(torch.tensor([[config.boi_token_index, config.eoi_token_index]]))[0].detach())
        return made


class Gemma4(TakenApart):
    """Gemma 4, whose pictures are of any proportions, at one square size; its ears are left out."""

    family, llm, vision, connector = GEMMA4, Gemma4Text, Gemma4Tower, Gemma4Projector

    @staticmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        return whole.model.language_model, whole.model.vision_tower

    @staticmethod
    def between(whole: Any, spec: LoadSpec, llm: TransformersLLM, vision: MLLMTower) -> Connector:
        config, trained = whole.config, whole.model.embed_vision
        width = config.text_config.hidden_size
        options = NormConfig(eps=config.vision_config.rms_norm_eps, layered=llm.card.input_width - width)
        made = Gemma4Projector(options, vision=vision.card, llm=llm.card)
        made.projection.load_state_dict(trained.embedding_projection.state_dict())
        ids = torch.tensor([[config.boi_token_id, config.eoi_token_id, config.text_config.pad_token_id]])
        first, last, padding = llm.embed(ids)[0].detach()
        made.rows.data.copy_(torch.stack([first, last]))
        made.layered.data.copy_(padding[width:])
        return made


class InternVL(TakenApart):
    """InternVL3 (arXiv 2504.10479) in the layout of transformers (`…-hf`), at one tile."""

    family, llm, vision, connector = INTERNVL, TransformersLLM, InternVLTower, ShuffleProjector

    @staticmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        return whole.model.language_model, whole.model.vision_tower

    @staticmethod
    def between(whole: Any, spec: LoadSpec, llm: TransformersLLM, vision: MLLMTower) -> Connector:
        config = whole.config
        options = ShuffleConfig(
            scale=round(1 / config.downsample_ratio),
            drop=dropped(config.vision_feature_select_strategy),
            activation=config.projector_hidden_act,
        )
        return _shuffle(options, whole.model.multi_modal_projector, llm, vision)


class SmolVLM(TakenApart):
    """SmolVLM and SmolVLM2 (arXiv 2504.05299), the first of which is an Idefics 3, at one tile."""

    family, llm, vision, connector = SMOLVLM, TransformersLLM, SmolVLMTower, ShuffleProjector

    @staticmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        return whole.model.text_model, whole.model.vision_model

    @staticmethod
    def between(whole: Any, spec: LoadSpec, llm: TransformersLLM, vision: MLLMTower) -> Connector:
        return _shuffle(ShuffleConfig(scale=whole.config.scale_factor), whole.model.connector, llm, vision)


def _shuffle(options: ShuffleConfig, trained: nn.Module, llm: TransformersLLM, vision: MLLMTower) -> Connector:
    """Build a projector with the weights of a trained one, whose layers stand in the same order."""
    made = ShuffleProjector(options, vision=vision.card, llm=llm.card)
    made.layers.load_state_dict(dict(zip(made.layers.state_dict(), trained.state_dict().values(), strict=True)))
    return made


class Llava(TakenApart):
    """LLaVA-1.5 (arXiv 2310.03744)."""

    family, llm, vision, connector = LLAVA, TransformersLLM, LlavaTower, LlavaProjector

    @staticmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        return whole.model.language_model, whole.model.vision_tower

    @staticmethod
    def between(whole: Any, spec: LoadSpec, llm: TransformersLLM, vision: MLLMTower) -> Connector:
        config = whole.config
        options = ProjectorConfig(
            activation=config.projector_hidden_act,
            bias=config.multimodal_projector_bias,
            drop=dropped(config.vision_feature_select_strategy),
        )
        made = LlavaProjector(options, vision=vision.card, llm=llm.card)
        made.load_state_dict(whole.model.multi_modal_projector.state_dict())
        return made


class Blip2(TakenApart):
    """BLIP-2 (arXiv 2301.12597) with OPT."""

    family, llm, vision, connector = BLIP2, TransformersLLM, Blip2Tower, Blip2QFormer

    @staticmethod
    def halves(whole: Any) -> tuple[Any, Any]:
        return whole.language_model.model, whole.vision_model

    @staticmethod
    def between(whole: Any, spec: LoadSpec, llm: TransformersLLM, vision: MLLMTower) -> Connector:
        options = QueryConfig(queries=whole.config.num_query_tokens, qformer=whole.config.qformer_config.to_diff_dict())
        made = Blip2QFormer(options, vision=vision.card, llm=llm.card)
        names = ("query_tokens", "qformer.", "language_projection.")
        made.load_state_dict({k: v for k, v in whole.state_dict().items() if k.startswith(names)})
        if spec.path is None:  # zero queries would meet a LayerNorm of epsilon 1e-12 first: gradients of 1e13
            nn.init.normal_(made.query_tokens, std=0.02, generator=torch.Generator().manual_seed(spec.config.seed))
        return made
