"""A causal language model of transformers as n2kit's `LLM`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from n2kit import LLM, LLMCard, Origin
from n2kit.errors import BadInput
from n2kit_hf.checkpoints import DTYPES, load_model, quietly, random_model
from n2kit_hf.tiny import byte_tokenizer

N2KIT_FILE = "n2kit.json"  # what transformers does not keep


class TransformersLLM(LLM):
    """Right padding and causal attention make an attention mask needless: none is passed, which takes the fast path."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        table: Any = model.get_input_embeddings()
        text = model.config.get_text_config()
        self.card = LLMCard(
            input_width=table.weight.shape[1],
            output_width=text.hidden_size,
            layers=text.num_hidden_layers,
            vocab=table.weight.shape[0],
            context=getattr(text, "max_position_embeddings", None) or 2**31,
            parameters=sum(p.numel() for p in model.parameters()),
            causal=self._reads_forwards(),
        )

    @classmethod
    def create(cls, origin: Origin) -> Self:
        path, options = origin.path, origin.config
        if path is None:
            if not options.config:
                raise BadInput("random weights need an architecture", "--set llm.config='{model_type: llama, …}'")
            kind = dict(options.config)
            config = AutoConfig.for_model(kind.pop("model_type"), **kind)
            return cls(_attending(random_model(AutoModel, config, options), options.attention), byte_tokenizer(config))
        if path.suffix == ".gguf":
            from n2kit_hf.gguf import converted

            path = converted(path)
        return cls(_attending(load_model(AutoModel, path, DTYPES[options.dtype]), options.attention), _tokenizer(path))

    @torch.no_grad()
    def _reads_forwards(self) -> bool:
        """Whether a later token leaves earlier states as they are: tried, since no configuration says it for all families."""
        vocab = self.model.get_input_embeddings().get_parameter("weight").shape[0]
        ids = torch.arange(8).remainder(vocab)[None].to(self.model.device)
        first, second = (self(self.embed(row))[:, :7].float() for row in (ids, torch.cat([ids[:, :7], ids[:, :1]], 1)))
        return bool((first - second).abs().max() <= 1e-3 * first.abs().max())

    def embed(self, ids: Tensor) -> Tensor:
        table: Any = self.model.get_input_embeddings()
        out: Tensor = table(ids)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(inputs_embeds=x, use_cache=False).last_hidden_state
        return out

    def blocks(self) -> Sequence[nn.Module]:
        stacks = [m for m in self.model.modules() if isinstance(m, nn.ModuleList) and len(m) == self.card.layers]
        return list(stacks[0]) if stacks else []

    def save(self, folder: Path) -> None:
        with quietly():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
        (folder / N2KIT_FILE).write_text(json.dumps({"attention": self.model.config._attn_implementation}))

    @classmethod
    def load(cls, folder: Path) -> Self:
        attention = json.loads((folder / N2KIT_FILE).read_text("utf8"))["attention"]
        return cls(_attending(load_model(AutoModel, folder, "auto"), attention), _tokenizer(folder))


def _attending(model: PreTrainedModel, attention: str) -> PreTrainedModel:
    """Have the model compute its attention so; it stays as it is where it has no such choice."""
    if getattr(model, "_supports_sdpa", False):
        model.set_attn_implementation(attention)
    return model


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        with quietly():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{folder}: no tokenizer that transformers can read: {str(error).splitlines()[0]}", "add tokenizer.json"
        ) from None
    return tokenizer
