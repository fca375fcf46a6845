"""The user's notation for how much of a part is trained; arithmetic and text, no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from n2kit.contract.cards import LLMCard, VisionCard
from n2kit.errors import BadInput

Mode = Literal["frozen", "last", "lora", "qlora", "full"]
MODES: tuple[Mode, ...] = get_args(Mode)
ADAPTED = ("lora", "qlora")
TUNED = ("llm", "vision", "connector")  # parts that a recipe can freeze; the others are always trained
PARTS = (*TUNED, "fusion", "head", "words", "loss")  # can have a learning rate of their own; words: the special tokens
FORMS = "frozen, last:K, lora:R, qlora:R (the LLM) or full"


@dataclass(frozen=True)
class Tune:
    """A mode of tuning: `frozen` · `last:K`, the last K blocks and what follows them · `lora:R[:ALPHA]`, `qlora:…` · `full`."""

    mode: Mode
    number: int = 0  # K, or R
    alpha: int = 0  # of LoRA: its output counts ALPHA / R times

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the notation.

        Raises:
            ValueError: with what is wrong in the text.
        """
        name, *numbers = text.split(":")
        mode = next((m for m in MODES if m == name), None)
        if mode is None:
            raise ValueError(f"{text!r} is no way to tune a part: {FORMS}")
        most = {"last": 1, "lora": 2, "qlora": 2}.get(mode, 0)
        if not min(most, 1) <= len(numbers) <= most or not all(n.isdecimal() and int(n) > 0 for n in numbers):
            examples = {
                "last": "last:2 tunes the last two blocks",
                "lora": "lora:16 has rank 16, lora:16:64 alpha 64 too",
            }
            examples["qlora"] = examples["lora"].replace("lora", "qlora")
            raise ValueError(f"{text!r} is not understood: {examples.get(mode, f'{mode} takes no number')}")
        number, alpha = ([int(n) for n in numbers] + [0, 0])[:2]
        return cls(mode, number, alpha or 2 * number if mode in ADAPTED else 0)

    def __str__(self) -> str:
        if self.adapts:
            return f"{self.mode}:{self.number}" + (f":{self.alpha}" if self.alpha != 2 * self.number else "")
        return f"{self.mode}:{self.number}" if self.number else self.mode

    @property
    def adapts(self) -> bool:
        """Tell whether an adapter is trained, and nothing else of the part."""
        return self.mode in ADAPTED

    @property
    def adapter(self) -> Self:
        """The mode with which a trained model is stored: `qlora:R` becomes `lora:R`, since its adapter is like any other."""
        return replace(self, mode="lora") if self.adapts else self

    def trained(self, card: LLMCard | VisionCard) -> int:
        """Count the parameters of a backbone that are trained: exact for `frozen` and `full`, else an estimate from its card.

        The matrices of a transformer block have, inputs and outputs of all added up, some 7 × its width + its parameters ÷ its
        width: 8 widths of attention, and a feed-forward layer of two or three matrices.
        """
        if self.mode in ("frozen", "full"):
            return card.parameters if self.mode == "full" else 0
        count, width = blocks_of(card), card.output_width if isinstance(card, LLMCard) else card.token_width
        table = card.vocab * card.input_width if isinstance(card, LLMCard) else 0
        block = max(0, card.parameters - table) / count
        if self.mode == "last":
            return min(card.parameters, round(min(self.number, count) * block) + width)
        return round(self.number * count * (7 * width + block / width))


def blocks_of(card: LLMCard | VisionCard) -> float:
    """Estimate the number of a backbone's blocks; of a vision encoder, as if it were a ViT of its size and width."""
    return card.layers if isinstance(card, LLMCard) else max(1.0, card.parameters / (12 * card.token_width**2))


def tune_flags(text: str | None) -> dict[str, Any]:
    """Parse `llm=lora:16,vision=frozen` into settings.

    Raises:
        BadInput: every entry that is none, and every part that is not tuned by choice.
    """
    found, wrong = _entries(text, TUNED)
    if wrong:
        raise BadInput(f"--tune {text}: {'; '.join(wrong)}", f"--tune llm=lora:16,vision=frozen: {FORMS}")
    return {f"{part}.tune": mode for part, mode in found.items()}


def lr_flags(text: str | None) -> dict[str, Any]:
    """Parse `1e-4` (one learning rate for everything), `llm=1e-5,connector=1e-4`, or both, into settings.

    Raises:
        BadInput: every entry that is no number or names no part.
    """
    pieces = [piece.strip() for piece in (text or "").split(",") if piece.strip()]
    found, wrong = _entries(",".join(p for p in pieces if "=" in p), PARTS)
    every = [p for p in pieces if "=" not in p]
    wrong += [f"{len(every)} rates for everything"] * (len(every) > 1)
    rates: dict[str, float] = {}
    for key, rate in [("", e) for e in every] + list(found.items()):
        try:
            rates[key] = float(rate)
        except ValueError:
            wrong.append(f"{rate!r} is no number")
    if wrong:
        raise BadInput(f"--lr {text}: {'; '.join(wrong)}", "--lr 1e-4, or --lr llm=1e-5,connector=1e-4")
    flags: dict[str, Any] = {}
    if "" in rates:
        flags = {"train.lr": rates[""], "train.new_lr": rates.pop(""), "train.lrs": {}}
    return flags | {f"train.lrs.{part}": rate for part, rate in rates.items()}


def _entries(text: str | None, parts: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """Parse `PART=VALUE,…` into part → value, and a list of what is wrong with it."""
    found, wrong = {}, []
    for entry in filter(None, (e.strip() for e in (text or "").split(","))):
        part, equals, value = (s.strip() for s in entry.partition("="))
        if not equals or not value:
            wrong.append(f"{entry!r} is not PART=VALUE")
        elif part not in parts:
            wrong.append(f"no part {part!r} of {', '.join(parts)}")
        else:
            found[part] = value
    return found, wrong
