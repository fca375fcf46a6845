"""The card of an image backbone of transformers, from its config.json and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from n2kit.contract import VisionCard
from n2kit.errors import BadInput, suggest
from n2kit_hf.cards import Locate, VisionConfig, read_config
from n2kit_hf.image_families import FAMILIES, Facts, Family
from n2kit_hf.image_processor import read_processing
from n2kit_hf.weight_files import parameter_count

# What a state holds that is no parameter.
BUFFERS = (
    "running_mean", "running_var", "num_batches_tracked", "relative_position_index", "relative_coords_table",
    "position_ids", "inv_freq",
)  # fmt: skip


def vision_card(options: VisionConfig, locate: Locate, families: Mapping[str, Family] = FAMILIES) -> VisionCard:
    """Read the card of a checkpoint's vision tower, or of `options.config` for random weights.

    Raises:
        BadInput: a model_type that is not among `families`, or a configuration without a size.
    """
    folder = locate()
    config = read_config(folder) if folder else dict(options.config or {})
    family = family_of(config, families)
    facts = family.facts(config)
    size = input_size(family, facts, folder)
    return VisionCard(
        tokens=family.tokens(facts, size),
        token_width=family.width(facts),
        pooled_width=family.width(facts),
        image_size=size,
        parameters=_parameters(folder, family),
        prefix_tokens=family.prefix_tokens(facts),
    )


def family_of(config: Mapping[str, Any], families: Mapping[str, Family]) -> Family:
    """Return the family that reads a model.

    Raises:
        BadInput: no family does.
    """
    name = config.get("model_type")
    if name is None and len(set(map(id, families.values()))) == 1:
        return next(iter(families.values()))
    if not isinstance(name, str) or name not in families:
        hint = suggest(str(name), families) or f"readable: {', '.join(families)}"
        raise BadInput(f"model_type {name!r} is no vision encoder that this component reads", hint)
    return families[name]


def input_size(family: Family, facts: Facts, folder: Path | None) -> int:
    """Return the pixels on a side: the configuration's, or the processor's where the model reads any size.

    Raises:
        BadInput: a picture that is not square.
    """
    stated = facts["image_size"]
    sides = {int(s) for s in stated} if isinstance(stated, list | tuple) else {int(stated)}
    if len(sides) != 1:
        raise BadInput(f"image_size {stated} is not square", "n2kit reads square pictures; choose another checkpoint")
    processed = None if family.fixed else read_processing(folder, family.colours).size
    return processed or sides.pop()


def has_pooler(folder: Path) -> bool:
    """Tell whether a checkpoint brings a pooler of its own."""
    return parameter_count(folder, lambda key: "pooler." in key) > 0


def _parameters(folder: Path | None, family: Family) -> int:
    """Count the numbers of a checkpoint that belong to the backbone; 0 where its weights are not there (yet)."""

    def own(key: str) -> bool:
        return not key.endswith(BUFFERS) and not any(piece in key for piece in family.foreign)

    inside = parameter_count(folder, lambda key: key.startswith(f"{family.base}.") and own(key)) if family.base else 0
    return inside or parameter_count(folder, own)
