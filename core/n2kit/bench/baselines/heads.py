"""A linear head on frozen features, trained on pairs in about a minute: the baseline that a joined model has to beat."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.bench.baselines.frozen import Features
from n2kit.bench.matrix.baseline_names import HeadSettings
from n2kit.contract.interfaces import Loss
from n2kit.data.items import Items
from n2kit.data.pairs import Pairs
from n2kit.errors import Mismatch
from n2kit.evaluate import evaluate
from n2kit.train.pairs import PairExtras, check_pairs

FLAT = 1e-6  # a feature with a smaller deviation over the training items carries no information, and is left out


class Head(nn.Module):
    """A linear map of each modality [B, d_i], summed: [B, width]. That is one linear map of their concatenation.

    Args:
        normalize_each: scale each mapped modality to unit length before the sum, so that neither outweighs the other.
    """

    def __init__(self, widths: Sequence[int], width: int, *, normalize_each: bool = False) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(d, width, bias=False) for d in widths)
        self.normalize_each = normalize_each
        for part in self.maps:
            nn.init.normal_(part.weight, std=sum(widths) ** -0.5)  # type: ignore[arg-type]  # keeps cosines, roughly

    def forward(self, modalities: Sequence[Tensor]) -> Tensor:
        mapped = [part(modality) for part, modality in zip(self.maps, modalities, strict=True)]
        return torch.stack([F.normalize(m, dim=-1) if self.normalize_each else m for m in mapped]).sum(0)


@dataclass
class TrainedHead:
    """Unit vectors [n, width] of all items (zeros for those without any modality), and the training that gave them.

    `mrr` is that of the validation pairs, None without any; `seconds` and `cpu_seconds` are those of the whole search.
    """

    vectors: np.ndarray
    lr: float
    steps: int
    mrr: float | None
    parameters: int
    seconds: float
    cpu_seconds: float

    @property
    def note(self) -> str:
        """Say how the learning rate and the step were chosen."""
        if self.mrr is None:
            return f"no validation pairs: learning rate {self.lr:g} and {self.steps} steps were not chosen"
        return f"validation pairs chose learning rate {self.lr:g} and step {self.steps} (their MRR: {self.mrr:.3f})"


def train_head(
    modalities: Sequence[Features],
    items: Items,
    pairs: Pairs,
    val_pairs: Pairs | None,
    new_loss: Callable[[], Loss],
    settings: HeadSettings,
    *,
    width: int | None = None,
    normalize_each: bool = False,
    seed: int = 0,
) -> TrainedHead:
    """Train a head of `width` (None: as wide as the widest modality) and map all items by it.

    The features are standardised by the items of `pairs` alone.

    Raises:
        BadInput: pairs that the loss cannot be trained on. Mismatch: a loss that needs more than vectors.
    """
    _check(pairs, new_loss())
    start, cpu = time.perf_counter(), time.process_time()
    own = np.array(sorted({items.position[i] for pair in pairs for i in pair}))
    inputs = [torch.from_numpy(standardised(modality, own)) for modality in modalities]
    search = _Search(inputs, items, pairs, val_pairs, new_loss, settings)
    width = width or max(x.shape[1] for x in inputs)
    with torch.random.fork_rng(devices=[]):
        runs = []
        for lr in settings.lrs if val_pairs else settings.lrs[:1]:
            torch.manual_seed(seed)
            runs.append(search.run(Head([x.shape[1] for x in inputs], width, normalize_each=normalize_each), lr, seed))
    best = max(runs, key=lambda run: run.mrr or 0.0)
    with torch.no_grad():
        vectors = F.normalize(best.head(inputs), dim=-1).numpy()
    return TrainedHead(
        vectors,
        best.lr,
        best.steps,
        best.mrr,
        sum(p.numel() for p in best.head.parameters()) + best.loss_parameters,
        time.perf_counter() - start,
        time.process_time() - cpu,
    )


def _check(pairs: Pairs, loss: Loss) -> None:
    check_pairs(pairs, loss, type(loss).__name__)
    if more := loss.extra_inputs - PairExtras.KNOWN:
        raise Mismatch(
            f"loss {type(loss).__name__} wants {', '.join(sorted(more))}, which a head on frozen features cannot give",
            "the baselines take another: loss.name=notellm2 in the matrix's settings",
        )


def standardised(modality: Features, rows: np.ndarray) -> np.ndarray:
    """Standardise features by the present ones among `rows`: [n, d] of mean 0 and deviation 1; absent items have zeros."""
    known = modality.values[rows][modality.present[rows]]
    if not len(known):
        return np.zeros_like(modality.values)
    mean, deviation = known.mean(0), known.std(0)
    scale = np.where(deviation > FLAT * max(1.0, float(np.abs(known).max())), 1 / np.maximum(deviation, FLAT * FLAT), 0)
    return np.where(modality.present[:, None], (modality.values - mean) * scale, 0).astype(np.float32)


@dataclass
class _Run:
    head: Head
    lr: float
    steps: int
    mrr: float | None
    loss_parameters: int


@dataclass
class _Search:
    """A search over learning rates: the data and settings that all its trainings share."""

    inputs: list[Tensor]
    items: Items
    pairs: Pairs
    val_pairs: Pairs | None
    new_loss: Callable[[], Loss]
    settings: HeadSettings

    def run(self, head: Head, lr: float, seed: int) -> _Run:
        """Train `head` until validation stops improving, and return it as it was at its best step."""
        settings, loss, extras = self.settings, self.new_loss(), PairExtras(self.pairs)
        groups: list[dict[str, Any]] = [
            {"params": head.parameters()},
            {"params": loss.parameters(), "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=lr, weight_decay=settings.weight_decay)
        best = _Run(head, lr, settings.max_steps, None, sum(p.numel() for p in loss.parameters()))
        batches = _batches(list(self.pairs), settings.batch_size, seed)
        for step in range(1, settings.max_steps + 1):
            self._step(head, loss, extras, next(batches), optimiser)
            if not self.val_pairs or (step % settings.eval_steps and step < settings.max_steps):
                continue
            mrr = self._mrr(head)
            if best.mrr is None or mrr > best.mrr:
                best.head, best.steps, best.mrr = copy.deepcopy(head), step, mrr
            elif step - best.steps >= settings.patience * settings.eval_steps:
                break
        return best

    def _step(self, head: Head, loss: Loss, extras: PairExtras, pairs: list[tuple[str, str]], optimiser: Any) -> None:
        ends = [a for a, _ in pairs] + [b for _, b in pairs]
        hard = dict.fromkeys(i for pair in pairs for i in self.pairs.negatives.get(pair, ()))
        ids = ends + [i for i in hard if i not in set(ends)]
        rows = torch.tensor([self.items.position[i] for i in ids])
        known = extras(ids, len(ids) - len(ends))
        own = {name: known[name] for name in loss.extra_inputs & known.keys()}
        optimiser.zero_grad()
        loss({"multimodal": head([x[rows] for x in self.inputs])}, {}, known["exclude"], **own).loss.backward()
        optimiser.step()

    @torch.no_grad()
    def _mrr(self, head: Head) -> float:
        """Measure the MRR of the validation pairs, among their own items and those of training."""
        assert self.val_pairs is not None
        ids = list(dict.fromkeys(i for some in (self.pairs, self.val_pairs) for pair in some for i in pair))
        rows = torch.tensor([self.items.position[i] for i in ids])
        vectors = F.normalize(head([x[rows] for x in self.inputs]), dim=-1).numpy()
        return evaluate(ids, vectors, self.val_pairs, protocol="standard").figures()["mrr"].value


def _batches(pairs: list[tuple[str, str]], size: int, seed: int) -> Iterator[list[tuple[str, str]]]:
    """Yield batches of pairs without end, each pass in another order; a rest that fills no batch is left out."""
    draw = torch.Generator().manual_seed(seed)
    size = min(size, len(pairs))
    while True:
        order = torch.randperm(len(pairs), generator=draw).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield [pairs[n] for n in order[start : start + size]]
