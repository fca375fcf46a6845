"""The frozen weights under an LLM's adapter in 4 bits while it is trained (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).

Only while it is trained: afterwards the layers are ordinary ones again, with the weights that the adapter was trained on, so that a
bundle needs no bitsandbytes and gives the vectors that were validated. NF4 in blocks of 64, without double quantisation: 4.5 bits.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from n2kit.contract.interfaces import LLM
from n2kit.errors import Mismatch, Unavailable
from n2kit.modeling import lora

BLOCK = 64
MAX_ERROR = 0.16  # of a block's largest number: half of the widest gap between two NF4 numbers, and some rounding


def require_bitsandbytes() -> None:
    """Check that bitsandbytes is installed.

    Raises:
        Unavailable: it is not, with the pip line.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Unavailable("llm.tune qlora needs bitsandbytes, which is not installed", 'pip install "n2kit[qlora]"')


def quantize(llm: LLM, device: torch.device) -> None:
    """Quantize the weights under all adapters to 4 bits, on `device`.

    Raises:
        Unavailable: no bitsandbytes, or one whose weights come back wrong. Mismatch: an adapter on what is no `nn.Linear`.
    """
    require_bitsandbytes()
    for name, layer in lora.adapted(llm).items():
        base = layer.get_base_layer()
        if type(base) is not nn.Linear:
            raise Mismatch(
                f"llm.tune qlora packs linear layers, and {name} is a {type(base).__name__}", "--tune llm=lora:16"
            )
        layer.base_layer = Linear4bit(base, device)


def dequantize(llm: LLM) -> None:
    """Replace 4-bit layers by ordinary ones, in the type that they had, with the weights that 4 bits can hold."""
    for layer in lora.adapted(llm).values():
        layer.base_layer = layer.base_layer.to_linear()


class Linear4bit(nn.Module):
    """A frozen linear layer, x [..., in] → [..., out], whose weight [out, in] is dequantized each time that it is needed.

    Raises:
        Unavailable: the weight comes back farther away than 4 bits explain. (bitsandbytes 0.50 does that on CPUs for rows that
            are no multiple of 64 numbers; as one long row, which is how it is given the weight here, they are.)
    """

    weight: Tensor
    scales: Tensor
    code: Tensor

    def __init__(self, base: nn.Linear, device: torch.device) -> None:
        from bitsandbytes.functional import quantize_4bit

        super().__init__()
        self.shape, self.dtype = base.weight.shape, base.weight.dtype
        flat = base.weight.detach().to(device).reshape(1, -1)
        packed, state = quantize_4bit(flat, blocksize=BLOCK, quant_type="nf4", compress_statistics=False)
        self.register_buffer("weight", packed)
        self.register_buffer("scales", state.absmax)
        self.register_buffer("code", state.code)
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().to(device), requires_grad=False)
        largest = self.scales.repeat_interleave(BLOCK)[: flat.numel()].view(self.shape)
        if ((self.dequantize().float() - flat.view(self.shape).float()).abs() > MAX_ERROR * largest).any():
            raise Unavailable(
                f"bitsandbytes gives other weights back than it was given, on {device.type}", "--tune llm=lora:16"
            )

    def dequantize(self) -> Tensor:
        """Return the weight [out, in], in the type that it had."""
        from bitsandbytes.functional import QuantState, dequantize_4bit

        size = torch.Size([1, self.shape.numel()])
        state = QuantState(
            absmax=self.scales, shape=size, code=self.code, blocksize=BLOCK, quant_type="nf4", dtype=self.dtype
        )
        return dequantize_4bit(self.weight, state).view(self.shape)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        bias = None if self.bias is None else self.bias.to(x.dtype)
        out: Tensor = _Linear.apply(x, self, bias)
        return out

    def to_linear(self) -> nn.Linear:
        """Make an ordinary frozen layer of it."""
        out, width = self.shape
        layer = nn.Linear(width, out, bias=self.bias is not None, device="meta").requires_grad_(False)
        layer.weight = nn.Parameter(self.dequantize(), requires_grad=False)
        if self.bias is not None:
            layer.bias = self.bias
        return layer


class _Linear(torch.autograd.Function):
    """A product that dequantizes the weight again for its gradient, in place of keeping it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Linear4bit, bias: Tensor | None) -> Tensor:
        ctx.layer = layer
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, layer.dequantize().to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] @ ctx.layer.dequantize().to(grads[0].dtype), None, None
