"""A text embedder's own pooling: one vector of all states of a row, and the dense layers behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from n2kit.errors import BadInput
from n2kit_hf.sentence_modules import SentenceModules, write_modules

WEIGHTS = "model.safetensors"
NAMES = {"weight": "linear.weight", "bias": "linear.bias"}  # of a dense layer in its file


class SentencePooling(nn.Module):
    """Pooling of states [B, T, D] to one vector a row, which then stands at every position: [B, T, Dh].

    So the state at the compress position is the embedder's own vector, wherever in the row that is.
    """

    def __init__(self, modules: SentenceModules) -> None:
        super().__init__()
        self.modules_read = modules
        self.layers = nn.ModuleList(nn.Linear(one.inputs, one.outputs, bias=one.bias) for one in modules.layers)
        self.activations = [getattr(nn, one.activation)() for one in modules.layers]

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool states [B, T, D], of which mask [B, T] marks the real ones (None: all): [B, T, Dh]."""
        length = states.shape[1]
        if self.modules_read.pooling == "mean":
            real = torch.ones_like(states[..., :1]) if mask is None else mask[..., None].to(states.dtype)
            states = (states * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1e-9)
        elif self.modules_read.pooling == "cls":
            states = states[:, :1]
        layer: Any
        for layer, activation in zip(self.layers, self.activations, strict=True):
            states = activation(layer(states.to(layer.weight.dtype)))
        return states.expand(-1, length, -1)

    @classmethod
    def read(cls, modules: SentenceModules, folder: Path | None) -> Self:
        """Load the dense layers' weights.

        Raises:
            BadInput: they are missing, or of other shapes.
        """
        made = cls(modules)
        for layer, about in zip(made.layers, modules.layers, strict=True):
            assert folder is not None  # only a folder names layers
            file = folder / about.path / WEIGHTS
            if not file.is_file():
                raise BadInput(
                    f"{file} is missing: n2kit reads safetensors alone",
                    "save the model again with sentence-transformers",
                )
            try:
                tensors = load_file(file)
                layer.load_state_dict({short: tensors[long] for short, long in NAMES.items() if long in tensors})
            except (SafetensorError, RuntimeError) as error:
                reason = str(error).splitlines()[-1].strip()
                raise BadInput(f"{file}: not the weights of this layer: {reason}", "copy it again") from None
        return made.eval()

    def save(self, width: int, folder: Path) -> None:
        """Write the modules into a folder as sentence-transformers does; `width` is that of the states."""
        write_modules(self.modules_read, width, folder)
        for layer, about in zip(self.layers, self.modules_read.layers, strict=True):
            tensors = {NAMES[name]: tensor.detach().cpu().contiguous() for name, tensor in layer.state_dict().items()}
            save_file(tensors, folder / about.path / WEIGHTS, metadata={"format": "pt"})
