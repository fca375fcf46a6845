"""The files of the catalogue, the built-in one and those that override it, and what their entries and model folders say."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from n2kit.contract.cards import Preset
from n2kit.contract.kinds import CARDS, Kind
from n2kit.utils.cache import config_folder
from n2kit.utils.files import read_json

FOLDER_FILES = ("config.json", "open_clip_config.json")  # by which a folder is recognised


@dataclass(frozen=True)
class Known:
    """A plug-in that the catalogue knows: its distribution, what it brings (`vision:hello`), and how to install it."""

    distribution: str
    install: str
    brings: str = ""
    summary: str = ""


def built_in() -> str:
    """Return the text of the registry.yaml that n2kit ships."""
    packaged = resources.files("n2kit").joinpath("registry.yaml")
    if packaged.is_file():
        return packaged.read_text("utf8")
    return (Path(__file__).parents[3] / "registry.yaml").read_text("utf8")


def override_files() -> list[Path]:
    """List the registry files of the user and of the project, in the order in which they count."""
    return [p for p in (config_folder() / "registry.yaml", Path("n2kit-registry.yaml")) if p.is_file()]


def preset_of(kind: Kind, entry: dict[str, Any]) -> Preset:
    """Make the preset that an entry of a registry file describes."""
    card = entry.get("card")
    weights = entry.get("weights", "random")
    if entry.get("revision"):
        weights = f"{weights}@{entry['revision']}"
    return Preset(
        weights=weights,
        options=entry.get("options", {}),
        card=CARDS[kind](**card) if card else None,
        licence=entry.get("licence"),
        notes=entry.get("notes"),
        template=entry.get("template"),
    )


def model_type_of(folder: Path) -> str | None:
    """Return the `model_type` of a folder's config.json; `timm` and `open_clip` for the folders that these two write."""
    config, open_clip = (folder / name for name in FOLDER_FILES)
    content = read_json(config) if config.is_file() else {}
    if "model_type" not in content and isinstance(content.get("pretrained_cfg"), dict) and "architecture" in content:
        return "timm"
    if "model_type" not in content and open_clip.is_file():
        return "open_clip"
    model_type = content.get("model_type")
    return model_type if isinstance(model_type, str) else None
