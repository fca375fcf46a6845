"""A bundle as a model of sentence-transformers: the same vectors, and its trainer can go on from it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import is_image_url_or_path
from sentence_transformers.base.modules.input_module import InputModule
from sentence_transformers.sentence_transformer.modules import Normalize
from sentence_transformers.util import load_dir_path
from torch import Tensor

from n2kit.bundle.io import load, save
from n2kit.bundle.manifest import README, read_manifest
from n2kit.data.columns import fields_of
from n2kit.data.given import as_items
from n2kit.data.image_source import URL
from n2kit.data.items import Item
from n2kit.errors import BadInput
from n2kit.export.folders import exported
from n2kit.inputs.reader import Reader
from n2kit.modeling.batch import Batch
from n2kit.modeling.model import Model
from n2kit.utils.files import read_json, write_json
from n2kit.utils.folders import bundle_folder
from n2kit.utils.version import VERSION

BUNDLE, CONFIG = "bundle", "config_sentence_transformers.json"
PREFIX = "n2kit_"  # of the features that hold a Batch
FIELDS = tuple(f.name for f in fields(Batch) if f.type == "Tensor" or f.name in ("pixels", "has_text"))


class N2kitModule(InputModule):  # type: ignore[misc]
    """A bundle in a `SentenceTransformer`: items in, vectors of no particular length out; `Normalize` comes behind it.

    An input is a text (a title), a dict of an item's fields, a path or an image of Pillow.
    """

    save_in_root = False

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    @property
    def modalities(self) -> list[Any]:
        """Name what the variant reads; `message` lets sentence-transformers pass on what is mixed."""
        variant = self.model.variant
        return [*["text"] * variant.text, *["image"] * variant.image, "message"]

    @property
    def max_seq_length(self) -> int:
        """The number of tokens of the longest item, which longer texts are cut to; it is the model's, and not to be set."""
        prompt = self.model.prompt_builder
        return prompt.body_tokens + len(prompt.suffix) + prompt.image_tokens + len(prompt.then_image)

    def get_embedding_dimension(self) -> int:
        return self.model.width

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Read inputs into the tensors of one batch.

        Raises:
            BadInput: a prompt, which the model has of its own; an input that is no item.
        """
        if prompt:
            raise BadInput("the model has a prompt of its own", "leave prompt out")
        reader = Reader(self.model.prompt_builder, self.model.vision, None)
        batch, kept = reader([_item(one, number) for number, one in enumerate(inputs)])
        if batch is None or not kept:
            raise BadInput("no inputs")
        features = {f"{PREFIX}{name}": value for name in FIELDS if (value := getattr(batch, name)) is not None}
        return features | {"input_ids": batch.ids.clamp_min(0)}  # that is looked at for its shape alone

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Compute the vectors [B, D] of a batch."""
        given: dict[str, Any] = {name: features[key] for name in FIELDS if (key := f"{PREFIX}{name}") in features}
        vectors: Tensor = self.model(Batch(**given)).views["multimodal"]
        return features | {"sentence_embedding": vectors.float()}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the bundle, whole, into a folder."""
        target = Path(output_path) / BUNDLE
        target.parent.mkdir(parents=True, exist_ok=True)
        save(self.model, target, by_reference=False, force=True)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **more: Any) -> Self:
        """Load the bundle that `save` wrote, of a folder or a hub's repository."""
        known = {name: more[name] for name in ("token", "cache_folder", "revision", "local_files_only") if name in more}
        return cls(
            load(Path(load_dir_path(model_name_or_path, subfolder=f"{subfolder}/{BUNDLE}".lstrip("/"), **known)))
        )


def as_sentence_transformer(bundle: str | Path | Model, *, device: str | None = None) -> SentenceTransformer:
    """Make a `SentenceTransformer` of a model, a bundle or a run; its classes are installed, so it needs no trust in remote code.

    Raises:
        BadInput: no bundle, or a damaged one.
    """
    model = bundle if isinstance(bundle, Model) else load(bundle_folder(bundle))
    return SentenceTransformer(
        modules=[N2kitModule(model), Normalize()], device=device or str(model.device), similarity_fn_name="cosine"
    )


def write(source: Path, out: Path, *, force: bool = False, **_: Any) -> dict[str, Any]:
    """Write a bundle as a folder that `SentenceTransformer(DIR, trust_remote_code=True)` loads."""
    made = as_sentence_transformer(source, device="cpu")
    facts = {"fingerprint": read_manifest(bundle_folder(source)).fingerprint}
    with exported(out, force, facts) as staged:
        made.save(str(staged), create_model_card=False)
        config = read_json(staged / CONFIG)
        write_json(staged / CONFIG, config | {"requirements": {"n2kit": f">={VERSION}"}})
        shutil.copy(staged / f"0_{N2kitModule.__name__}" / BUNDLE / README, staged / README)
    return {"width": made[0].get_embedding_dimension(), "modalities": made.modalities}


def _item(one: Any, number: int) -> Item:
    """Make an item of one input.

    Raises:
        BadInput: a URL; a chat message; what `as_items` raises.
    """
    if isinstance(one, str):
        one = {"image": one} if is_image_url_or_path(one) else {"title": one}
    if isinstance(one, dict):
        if {"role", "content"} <= one.keys():
            raise BadInput(f"input {number} is a chat message", "a dict of an item's fields: title, topics, image …")
        row = {"title" if key == "text" else key: value for key, value in one.items()}
        one = fields_of(row, f"input {number}")
        image = one.get("image")
        if isinstance(image, str) and URL.match(image):
            raise BadInput(f"input {number}: image {image[:100]!r} is a URL", "download it first")
        if isinstance(image, str) and image and not image.startswith("data:"):
            one["image"] = Path(image)
        one = {"id": str(number)} | one
    if isinstance(one, torch.Tensor):
        one = one.cpu().numpy()
    return as_items([one])[0]
