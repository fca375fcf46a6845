"""Wheels out of strings, installed into a folder: what a stranger's package looks like to n2kit."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

COMPONENT = """
from n2kit.contract import ComponentSpec, Preset, VisionCard, hookimpl
N2KIT_PLUGIN_API = (2, 0)
@hookimpl
def n2kit_register_components():
    return [ComponentSpec(
        kind="{kind}", name="{name}", summary="s", target="{module}_parts:Part", config="{module}_config:Config",
        card="{module}_config:card", presets={presets},
    )]
"""
CONFIG = """
from pydantic import BaseModel
from n2kit.contract import FusionCard
class Config(BaseModel):
    pass
def card(config, vision, llm):
    return FusionCard(0)
"""
PARTS = """
from n2kit.contract import Fusion
from {module}_config import Config
class Part(Fusion):
    config_class = Config
    def forward(self, hidden, pooled):
        return hidden
"""


def fusion(module: str, name: str) -> dict[str, str]:
    """The files of a sound plug-in with one fusion."""
    files = {f"{module}": COMPONENT, f"{module}_config": CONFIG, f"{module}_parts": PARTS}
    facts = {"{kind}": "fusion", "{name}": name, "{module}": module, "{presets}": "{}"}
    return {f"{file}.py": _filled(text, facts) for file, text in files.items()}


def _filled(text: str, facts: dict[str, str]) -> str:
    for mark, value in facts.items():
        text = text.replace(mark, value)
    return text


def wheel(folder: Path, distribution: str, files: dict[str, str], *, point: str, module: str) -> Path:
    """Write a wheel of version 1.0 with one entry point of group n2kit."""
    name = distribution.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    content = dict(files)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    content[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[f"{info}/entry_points.txt"] = f"[n2kit]\n{point} = {module}\n"
    content[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*content, f"{info}/RECORD"])
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in content.items():
            archive.writestr(file, text)
    return path


def install(wheels: list[Path], folder: Path) -> None:
    """Install wheels into a folder, without a network."""
    options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, wheels)], check=True)
