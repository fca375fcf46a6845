"""A language model of transformers as n2kit's `LLM`."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from n2kit.contract import LLM, LLMCard, LoadSpec, non_finite_weight, one_thread_if_small, read_json
from n2kit.errors import BadInput, Mismatch
from n2kit_hf.bodies import (
    implementations,
    in_float32,
    language_body,
    running_stack,
    scores,
    settled,
    text_alone,
    unused_positions,
)
from n2kit_hf.cards import context_of
from n2kit_hf.checkpoints import load_model, quietly, random_model, settings_of
from n2kit_hf.pooling import SentencePooling
from n2kit_hf.prefix_cache import PrefixCache, prefix_cache_works
from n2kit_hf.reading import attention_asked, read_model
from n2kit_hf.sentence_modules import SentenceModules, modules_of
from n2kit_hf.tiny import byte_tokenizer
from n2kit_hf.tokenizers import check_tokenizer, read_tokenizer
from n2kit_hf.traits import reads_embeddings

N2KIT_FILE = "n2kit.json"  # what transformers does not keep


class Tried(NamedTuple):
    """The results of a trial with eight tokens: Dh, causality, and the presence of a gradient for embeddings."""

    width: int
    causal: bool
    embeds: bool


class TransformersLLM(LLM):
    """A decoder, a state-space model or an encoder, without its head unless that is asked for.

    Right padding and causal attention make an attention mask needless: a causal model gets none, which takes the fast path. One
    that reads both ways takes `mask`.

    Args:
        whole: the causal language model that `model` is the body of; its head is then a part of this one, and saved with it.
        pooling: a text embedder's own, where its vector is more than the state at the last token. Every state is then that vector.

    Raises:
        Mismatch: the head does more than `scores` knows of.
    """

    carries_layers: ClassVar[bool] = False  # its embeddings carry those of the model's layers, where it has some

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        whole: PreTrainedModel | None = None,
        pooling: SentencePooling | None = None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.model, self.tokenizer = settled(language_body(model)), tokenizer
        self._whole = () if whole is None else (whole,)  # no module of ours: its weights are those of body and head
        table: Any = self.model.get_input_embeddings()
        model, text = self.model, self.model.config.get_text_config()
        tried = self._tried()
        self.card = LLMCard(
            input_width=table.weight.shape[1],
            output_width=tried.width,
            layers=text.num_hidden_layers,
            vocab=table.weight.shape[0],
            context=context_of(text.to_dict()) - unused_positions(model),
            parameters=sum(p.numel() for part in (model, pooling) if part is not None for p in part.parameters()),
            causal=tried.causal,
            embeds=tried.embeds and (self.carries_layers or reads_embeddings(text.to_dict())),
            attention=implementations(model),
        )
        if not tried.causal:  # a mean over all states makes a causal model read both ways, too
            self.extra_inputs = frozenset({"mask"})
        if whole is not None:
            self._keep_head(whole)

    @classmethod
    def create(cls, spec: LoadSpec) -> Self:
        """Load a folder or a GGUF file, or make random weights.

        Raises:
            BadInput: nothing to make it from, or no checkpoint of a language model.
            Mismatch: an attention that the architecture does not have, a model that needs token ids, or a head of a text embedder.
        """
        path, options = spec.path, spec.config
        if path is None and not options.config:
            raise BadInput("random weights need an architecture", "--set llm.config='{model_type: llama, …}'")
        if path is None and options.adapter is not None:
            raise BadInput(f"adapter {options.adapter}: random weights are no base of it", "--llm NAME@file:FOLDER")
        if path is not None and path.suffix == ".gguf":
            from n2kit_hf.gguf import converted

            path = converted(path)
        attention, modules = attention_asked(path, options), modules_of(path, options.pooling)
        if spec.head and modules is not None and modules.alters_states:
            what = f"{path or 'llm.pooling'}: a text embedder that pools its states scores no tokens"
            raise Mismatch(what, "another language model, or a loss that generates nothing")
        if path is None:
            reader = AutoModelForCausalLM if spec.head else AutoModel
            kind = dict(options.config)
            config = AutoConfig.for_model(kind.pop("model_type"), attn_implementation=attention, **kind)
            made = cls._of(random_model(reader, config, options), byte_tokenizer(config), spec.head, modules)
        else:
            model = read_model(path, options, attention, head=spec.head)
            made = cls._of(model, read_tokenizer(path), spec.head, modules, spec.path)
            check_tokenizer(made.tokenizer, made.card.vocab, path)
        if not made.card.embeds:
            what = f"model_type {made.model.config.model_type!r} cannot be joined: it reads token ids"
            raise Mismatch(what, "another language model; n2kit ls llm")
        return made

    @classmethod
    def _of(
        cls,
        loaded: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        head: bool,
        modules: SentenceModules | None = None,
        folder: Path | None = None,
    ) -> Self:
        if modules is not None and modules.alters_states:
            made = cls(loaded, tokenizer, pooling=SentencePooling.read(modules, folder))
        elif not head:
            made = cls(loaded, tokenizer)
        else:
            loaded = text_alone(loaded)
            body: Any = loaded.base_model
            made = cls(body, tokenizer, loaded)
        if modules is not None:
            context = made.card.context
            made.card = replace(made.card, max_tokens=min(modules.max_tokens or context, context))
        return made

    def _keep_head(self, whole: PreTrainedModel) -> None:
        """A head with weights of its own becomes a part of this one; one that shares the input table's is there already."""
        head: Any = whole.get_output_embeddings()
        table: Any = self.model.get_input_embeddings()
        if head is not None and head.weight is not table.weight:
            self.lm_head = head
        x = self.embed((torch.arange(8)[None] + self.card.vocab // 2).remainder(self.card.vocab))
        with torch.no_grad(), quietly(), one_thread_if_small(whole):
            said = whole(**self.model_inputs(x), use_cache=False).logits if head is not None else None
            ours = None if said is None else self.logits(self(x))
        if said is None or ours is None or not torch.allclose(ours, said, atol=1e-2 * float(said.abs().max())):
            what = f"model_type {whole.config.model_type!r} scores tokens with more than a linear head"
            raise Mismatch(what, "another language model, or a loss that generates nothing")

    def _tried(self) -> Tried:
        """Try the model, in float32 where its own type is too narrow for its states, and note which list of blocks runs.

        Raises:
            BadInput: its weights, or its states in float32, are not finite.
        """
        found: list[Tried | None] = []
        layers = self.model.config.get_text_config().num_hidden_layers
        self._stack = running_stack(self.model, layers, lambda: found.append(self._try()))
        if found[0] is None:
            with in_float32(self.model):
                found = [self._try()]
        if found[0] is None:
            problem = non_finite_weight(self.model) or "its states are not finite, in float32 too"
            raise BadInput(f"{self.model.name_or_path}: {problem}", "copy or download the weights again")
        return found[0]

    def _try(self) -> Tried | None:
        """Find by gradients on which later tokens a state depends: exactly zero where attention is masked, in any precision.

        None where a number is not finite.
        """
        table: Any = self.model.get_input_embeddings()
        vocab = table.weight.shape[0]
        ids = (torch.arange(8) + vocab // 2).remainder(vocab)  # ids at the ends may be special
        # What transformers says once (no Mamba kernels) it says here.
        with torch.enable_grad(), quietly(), one_thread_if_small(self.model):
            x = self.embed(ids[None].to(self.model.device)).detach().requires_grad_()
            try:
                states = self(1 * x)  # no leaf, as in the joined model: CTRL writes into its input
                seen = states[:, :-1].float()
                # Sums alone have no gradient behind a norm: sine gives every number a weight of its own.
                weights = torch.arange(seen.numel(), device=seen.device).sin().view_as(seen)
                (gradient,) = torch.autograd.grad((seen * weights).sum(), x)
            except (RuntimeError, ValueError, TypeError):
                return Tried(self.model.config.get_text_config().hidden_size, causal=True, embeds=False)
        size = gradient.float().norm(dim=-1)[0]
        if not (states.isfinite().all() and size.isfinite().all()):
            return None
        return Tried(states.shape[-1], causal=bool(size[-1] <= 1e-6 * size.max()), embeds=bool((size[:-1] > 0).all()))

    def embed(self, ids: Tensor) -> Tensor:
        table: Any = self.model.get_input_embeddings()
        out: Tensor = table(ids)
        return out

    def forward(self, x: Tensor, mask: Tensor | None = None, past: PrefixCache | None = None) -> Tensor:
        """Compute the hidden states [B, T, Dh] of x [B, T, De], in the type of x.

        Args:
            mask: [B, T] bool, where `extra_inputs` names it. past: the prefix before x, as `prefill` returned it.
        """
        real = None if mask is None else mask.long()
        cache = {"use_cache": False} if past is None else past.arguments(self.model)
        out: Tensor = self.model(**self.model_inputs(x), attention_mask=real, **cache).last_hidden_state
        out = out if self.pooling is None else self.pooling(out, mask)
        return out.to(x.dtype)  # Mamba keeps its residuals, and so its states, in float32

    def model_inputs(self, x: Tensor) -> dict[str, Tensor]:
        """Name what the model takes for embeddings x [B, T, De]."""
        return {"inputs_embeds": x}

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Score the next tokens of hidden_states [n, Dh] as the causal language model does: [n, vocab]."""
        if not self._whole:
            return super().logits(hidden_states)
        (whole,) = self._whole
        head: Any = whole.get_output_embeddings()
        return scores(head(hidden_states.to(head.weight.dtype)), whole.config.get_text_config())

    @property
    def settings_id(self) -> str:
        pooling = "" if self.pooling is None else f" {self.pooling.modules_read}"
        return f"{type(self).__name__}{pooling} {settings_of(self.model)}"

    @functools.cached_property
    def supports_prefix_cache(self) -> bool:
        """Tell whether prefixes can be shared, found by trying at the first access."""
        return not self.extra_inputs and prefix_cache_works(self, self.model)

    def prefill(self, x: Tensor) -> PrefixCache:
        return PrefixCache.prefill(self.model, x)

    def generate(
        self, x: Tensor, max_new_tokens: int, eos_token_id: int | None = None, num_beams: int = 1
    ) -> list[int]:
        """Generate with transformers, which keeps keys and values and has beams; see `LLM.generate`."""
        if not self._whole:
            return super().generate(x, max_new_tokens, eos_token_id, num_beams)
        (whole,) = self._whole
        # What is left open comes from the checkpoint's own settings, which may be to sample. There is one row, and nothing to pad.
        how = GenerationConfig(
            max_new_tokens=max_new_tokens, num_beams=num_beams, do_sample=False, repetition_penalty=1.0,
            eos_token_id=eos_token_id, pad_token_id=eos_token_id or 0,
        )  # fmt: skip
        ones = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        with quietly():
            out = whole.generate(inputs_embeds=x, attention_mask=ones, generation_config=how)  # type: ignore[operator]
        ids: list[int] = out[0].tolist()
        return ids[: ids.index(eos_token_id)] if eos_token_id in ids else ids

    def blocks(self) -> Sequence[nn.Module]:
        if self._stack is None:
            return []
        stack: Any = self.model.get_submodule(self._stack)
        return list(stack)

    def save(self, folder: Path) -> None:
        with quietly():
            (*self._whole, self.model)[0].save_pretrained(folder)
            for note in ("is_local", "local_files_only"):  # where it was read from, which would make it another model
                self.tokenizer.init_kwargs.pop(note, None)
            self.tokenizer.save_pretrained(folder)
        attention = self.model.config._attn_implementation if self.card.attention else None
        facts = {"attention": attention, "max_tokens": self.card.max_tokens} | ({"head": True} if self._whole else {})
        (folder / N2KIT_FILE).write_text(json.dumps(facts))
        if self.pooling is not None:
            self.pooling.save(self.model.config.get_text_config().hidden_size, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        facts = read_json(folder / N2KIT_FILE)
        head = facts.get("head", False)
        reader = AutoModelForCausalLM if head else AutoModel
        model = load_model(reader, folder, "auto", facts["attention"], saved=True)
        made = cls._of(model, read_tokenizer(folder), head, modules_of(folder), folder)
        made.card = replace(made.card, max_tokens=facts.get("max_tokens"))
        return made
