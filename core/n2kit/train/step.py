"""The model and its loss as one module: a batch of pairs in, the loss and its terms out."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from n2kit.errors import Mismatch
from n2kit.train import distributed
from n2kit.train.gradcache import encode_in_chunks
from n2kit.utils.contexts import autocast

if TYPE_CHECKING:
    from n2kit.modeling.batch import Batch
    from n2kit.modeling.model import Model

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
PRESENT = "present:"  # prefix of the entries that say which items have a view
ANSWERS = "answers"  # entry for the cost of generated answers


class TrainStep(nn.Module):
    """The model and its loss: encodes each distinct item once, copies its vectors to its rows, gathers those of all processes.

    Args:
        dtype: what the model computes in, by autocast.
        grad_cache: items encoded at a time; None: all of them.
        equal_chunks: every process runs the model equally often, however many items it has.

    Raises:
        Mismatch: `grad_cache` with a batch norm that is trained, whose output depends on which items are encoded together.
    """

    def __init__(
        self, model: Model, dtype: torch.dtype, grad_cache: int | None = None, equal_chunks: bool = False
    ) -> None:
        super().__init__()
        self.model, self.dtype, self.grad_cache, self.equal_chunks = model, dtype, grad_cache, equal_chunks
        norms = [n for n, m in model.named_modules() if isinstance(m, NORMS) and m.training]
        if grad_cache and norms:
            raise Mismatch(
                f"train.grad_cache encodes {grad_cache} items at a time, and {norms[0]} takes its mean over all of them",
                "leave out train.grad_cache, or freeze that part",
            )

    def forward(
        self,
        batch: Batch,
        exclude: Tensor,
        item_index: Tensor | None = None,
        order: Tensor | None = None,
        **extras: Tensor,
    ) -> dict[str, Any]:
        """Compute the loss of a step.

        Args:
            batch: U items. item_index: [2B], the item of each of this process's rows; None: row i is item i.
            exclude: [R, R], as `n2kit.contract.interfaces.Loss` takes it, over the rows of all processes; R = 2B with one process.
            order: [R], the permutation that brings the gathered rows, process by process, to all left rows and then all right ones;
                None: as they are.
            extras: the loss's `extra_inputs`, for the rows.
        """
        views = self.vectors(batch)
        rows = {
            name: distributed.all_gather_with_grad(view if item_index is None else view[item_index])
            for name, view in views.items()
        }
        if order is not None:
            rows = {name: view[order] for name, view in rows.items()}
        present = {name.removeprefix(PRESENT): rows.pop(name) > 0 for name in list(rows) if name.startswith(PRESENT)}
        if ANSWERS in rows:
            cost, tokens = rows.pop(ANSWERS).sum(0)
            extras["generation"] = cost / tokens.clamp_min(1)
        result = self.model.loss(rows, present, exclude, **extras)
        return {"loss": result.loss, "terms": result.terms}

    def vectors(self, batch: Batch) -> dict[str, Tensor]:
        """Encode the items: view → [U, D] in float32, `present:`view → [U], 1 where an item has it; `answers` if the loss generates."""
        if self.grad_cache is None:
            return self._encode(batch)
        chunks = math.ceil(len(batch.ids) / self.grad_cache)
        if self.equal_chunks:
            chunks = distributed.all_reduce_max(chunks, batch.ids.device)
        if chunks == 1:
            return self._encode(batch)
        vision = self.model.vision
        if batch.pixels is not None and vision is not None and vision.frozen:
            with autocast(self.model.device, self.dtype):  # once, and not again for the gradient, which it has none of
                batch = replace(batch, vision_out=self.model.encode_images(batch), pixels=None)
        return encode_in_chunks(self._encode, batch, self.grad_cache, chunks)

    def _encode(self, batch: Batch) -> dict[str, Tensor]:
        with autocast(self.model.device, self.dtype):
            out = self.model(batch.with_vision_out())
        views = {name: view.float() for name, view in out.views.items()}
        views |= {f"{PRESENT}{name}": there.float() for name, there in out.present.items()}
        if "generation" in self.model.loss.extra_inputs:
            # Also where no item has a task: other processes may have answers to gather.
            none = torch.zeros(len(batch.ids), 2, device=batch.ids.device)
            views[ANSWERS] = none if out.answers is None else out.answers
        return views
