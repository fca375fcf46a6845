"""The flow of information into the compressed word, layer by layer (NoteLLM-2, section 3.2, after Wang et al. 2023, arXiv 2305.14160).

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
from n2kit.utils.contexts import eval_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from n2kit.contract.interfaces import LLM
    from n2kit.modeling.batch import Batch
    from n2kit.modeling.model import Model

CURVES = ("S_v", "S_t", "S_o")  # from the image, from the text, among the others
ANSWER = 3  # under mICL the span runs so far behind p(n_v): the example's answer and what closes it


def obstacle(model: Model) -> str | None:
    """Return the reason why a model has no saliency curves, or None."""
    card, name = model.llm.card, model.recipe.variant
    if not model.variant.early:
        return f"variant {name} has no visual tokens in its prompt"
    if not card.attention or _backbone(model.llm) is None:
        return "the llm has no attention whose probabilities can be read"
    if not card.causal:
        return "the llm reads both ways, and the curves are defined for causal attention"
    return None


def saliency(model: Model, batch: Batch, exclude: Tensor | None = None) -> Tensor:
    """Compute S_v, S_t and S_o [B, L, 3] of B items, all with their image in the prompt; item i and item i + B/2 are partners.

    L counts the layers that have attention. An item's numbers depend on its batch, whose other items are its negatives.

    Args:
        exclude: [B, B] bool, pairs of rows that are no negatives.

    Raises:
        Mismatch: the model has no such curves, or its attention cannot be switched to eager.
    """
    if (reason := obstacle(model)) is not None:
        raise Mismatch(f"no saliency: {reason}", "a variant with visual tokens and a causal llm with attention")
    with eval_mode(model), torch.enable_grad(), model.capture_hidden_states(), _attentions(model) as attentions:
        view = model(batch).views["multimodal"]
        known = {"grades": torch.ones(len(view) // 2), "log_q": torch.zeros(len(view))}
        extras = {name: known[name].to(view.device) for name in model.loss.extra_inputs & known.keys()}
        excluded = None if exclude is None else exclude.to(view.device)
        loss = model.loss({"multimodal": view}, None, excluded, **extras).loss
        gradients = torch.autograd.grad(loss, attentions)
    return torch.stack([flows(a.detach() * g, batch) for a, g in zip(attentions, gradients, strict=True)], 1)


def flows(product: Tensor, batch: Batch) -> Tensor:
    """Sum A ⊙ ∂L/∂A [B, H, T, T] of one layer to S_v, S_t, S_o [B, 3]."""
    influence = product.float().sum(1).abs().cpu()
    influence.diagonal(dim1=-2, dim2=-1).zero_()
    ids, pool, visual = batch.ids.cpu(), batch.pool_pos.cpu(), batch.visual_pool_pos.cpu()
    image = ids == IMG
    start = image.int().argmax(1)
    end = torch.where(visual >= 0, (visual + ANSWER).minimum(pool - 1), start + image.sum(1) - 1)
    place = torch.arange(ids.shape[1])
    span = (place >= start[:, None]) & (place <= end[:, None])
    every = torch.arange(len(ids))
    word = influence[every, pool]
    influence[every, pool] = 0.0
    length = end - start + 1
    others = pool - length
    counts = torch.stack([length, others, pool * (pool + 1) // 2 - length - others], 1)
    sums = torch.stack([(word * span).sum(1), (word * ~span).sum(1), influence.sum((1, 2))], 1)
    return sums / counts.clamp_min(1)


@contextmanager
def _attentions(model: Model) -> Iterator[Sequence[Tensor]]:
    """Collect the attention probabilities [B, H, T, T] of each layer in the next forward pass, with a gradient."""
    backbone = _backbone(model.llm)
    assert backbone is not None
    attentions: list[Tensor] = []

    def request(_: Any, arguments: Any, options: dict[str, Any]) -> Any:
        return arguments, options | {"output_attentions": True}

    def keep(_: Any, __: Any, out: Any) -> None:
        attentions.extend(a for a in out.attentions or () if a is not None)

    table = model.special_tokens.table.weight
    trained = table.requires_grad
    with _eager(backbone):
        hooks = [backbone.register_forward_pre_hook(request, with_kwargs=True), backbone.register_forward_hook(keep)]
        table.requires_grad_(True)  # so that there is a gradient even where every part is frozen
        try:
            yield attentions
        finally:
            table.requires_grad_(trained)
            for hook in hooks:
                hook.remove()


@contextmanager
def _eager(backbone: PreTrainedModel) -> Iterator[None]:
    """Switch to eager attention, the only one that returns its probabilities, and back afterwards."""
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
    """Return the transformers model inside the part, or None if there is none."""
    from transformers import PreTrainedModel

    return next((m for m in llm.modules() if isinstance(m, PreTrainedModel)), None)
