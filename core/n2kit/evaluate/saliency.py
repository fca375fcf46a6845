"""Where the compressed word gets its information from, layer by layer (NoteLLM-2, section 3.2, after Wang et al. 2023, arXiv 2305.14160).

I = |Σ over heads of A ⊙ ∂L/∂A|, A the attention probabilities after softmax, L the loss on the multimodal view alone. One backward
pass of the model that is there, switched to eager attention for as long as it takes; its weights and their gradients stay untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from n2kit.errors import Mismatch
from n2kit.modeling.prompts import IMG

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from n2kit.contract.interfaces import LLM
    from n2kit.modeling.batch import Batch
    from n2kit.modeling.model import Model

CURVES = ("S_v", "S_t", "S_o")  # from the image, from the text, among the others
ANSWER = 3  # under mICL the span runs so far behind p(n_v): the example's answer and what closes it


def obstacle(model: Model) -> str | None:
    """Why a model has no saliency curves, or None."""
    card, name = model.llm.card, model.recipe.variant
    if not model.variant.early:
        return f"variant {name} has no visual tokens in its prompt"
    if not card.attention or _backbone(model.llm) is None:
        return "the llm has no attention whose probabilities can be read"
    if not card.causal:
        return "the llm reads both ways, and the curves are defined for causal attention"
    return None


def saliency(model: Model, batch: Batch, exclude: Tensor | None = None) -> Tensor:
    """S_v, S_t and S_o [B, L, 3] of B items, all of which show their picture in the prompt; the first half's partners are the second.

    L counts the layers that have attention. An item's numbers depend on its batch, whose other items are its negatives.

    Args:
        exclude: [B, B] bool, pairs of rows that are no negatives.

    Raises:
        Mismatch: the model has no such curves, or its attention cannot be switched to eager.
    """
    if (reason := obstacle(model)) is not None:
        raise Mismatch(f"no saliency: {reason}", "a variant with visual tokens and a causal llm with attention")
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad(), model.reading_all_at_once(), _watched(model) as seen:
            view = model(batch).views["multimodal"]
            facts = {"grades": torch.ones(len(view) // 2), "log_q": torch.zeros(len(view))}
            wanted = {name: facts[name].to(view.device) for name in model.loss.wants & facts.keys()}
            known = None if exclude is None else exclude.to(view.device)
            loss = model.loss({"multimodal": view}, None, known, **wanted).loss
            gradients = torch.autograd.grad(loss, seen)
    finally:
        model.train(was_training)
    return torch.stack([flows(a.detach() * g, batch) for a, g in zip(seen, gradients, strict=True)], 1)


def flows(product: Tensor, batch: Batch) -> Tensor:
    """A ⊙ ∂L/∂A [B, H, T, T] of one layer → S_v, S_t, S_o [B, 3]."""
    influence = product.float().sum(1).abs().cpu()
    influence.diagonal(dim1=-2, dim2=-1).zero_()
    ids, final, visual = batch.ids.cpu(), batch.final.cpu(), batch.visual.cpu()
    image = ids == IMG
    start = image.int().argmax(1)
    end = torch.where(visual >= 0, (visual + ANSWER).minimum(final - 1), start + image.sum(1) - 1)
    place = torch.arange(ids.shape[1])
    span = (place >= start[:, None]) & (place <= end[:, None])
    every = torch.arange(len(ids))
    word = influence[every, final]
    influence[every, final] = 0.0
    length = end - start + 1
    others = final - length
    counts = torch.stack([length, others, final * (final + 1) // 2 - length - others], 1)
    sums = torch.stack([(word * span).sum(1), (word * ~span).sum(1), influence.sum((1, 2))], 1)
    return sums / counts.clamp_min(1)


@contextmanager
def _watched(model: Model) -> Iterator[Sequence[Tensor]]:
    """The list that the attention probabilities [B, H, T, T] of the next forward pass are put into, with a gradient behind them."""
    backbone = _backbone(model.llm)
    assert backbone is not None
    seen: list[Tensor] = []

    def ask(_: Any, arguments: Any, options: dict[str, Any]) -> Any:
        return arguments, options | {"output_attentions": True}

    def keep(_: Any, __: Any, out: Any) -> None:
        seen.extend(a for a in out.attentions or () if a is not None)

    words = model.words.table.weight
    trained = words.requires_grad
    with _eager(backbone):
        hooks = [backbone.register_forward_pre_hook(ask, with_kwargs=True), backbone.register_forward_hook(keep)]
        words.requires_grad_(True)  # so that there is a gradient even where every part is frozen
        try:
            yield seen
        finally:
            words.requires_grad_(trained)
            for hook in hooks:
                hook.remove()


@contextmanager
def _eager(backbone: PreTrainedModel) -> Iterator[None]:
    """Only eager attention gives its probabilities."""
    before = backbone.config._attn_implementation
    if before != "eager":
        backbone.set_attn_implementation("eager")
    if backbone.config._attn_implementation != "eager":
        kind = backbone.config.model_type
        what = f"model_type {kind!r} was built with {before} attention and cannot be switched to eager"
        raise Mismatch(f"no saliency: {what}", "build it with --set llm.attention=eager")
    try:
        yield
    finally:
        if before != "eager":
            backbone.set_attn_implementation(before)


def _backbone(llm: LLM) -> PreTrainedModel | None:
    """The transformers model inside the part, if that is what it is made of."""
    from transformers import PreTrainedModel

    return next((m for m in llm.modules() if isinstance(m, PreTrainedModel)), None)
