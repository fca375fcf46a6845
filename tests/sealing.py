"""A manifest that matches a bundle which a test has changed: what a stranger could make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from n2kit.bundle.manifest import MANIFEST, Manifest, contents, model_fingerprint, read_manifest, read_recipe


def reseal(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / MANIFEST).read_text("utf8")) | {"files": contents(folder)} | changes
    manifest = Manifest.model_validate(content)
    content["fingerprint"] = model_fingerprint(read_recipe(folder), manifest.files, manifest.sources, manifest.parts)
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf8")


def older(folder: Path, number: int) -> None:
    """Make a bundle as the version before wrote it: its fingerprint does not cover the parts."""
    content = json.loads((folder / MANIFEST).read_text())
    manifest = read_manifest(folder)
    fingerprint = model_fingerprint(read_recipe(folder), manifest.files, manifest.sources, {})
    content |= {"format": number, "fingerprint": fingerprint}
    if number == 1:
        del content["files"], content["sources"]
    (folder / MANIFEST).write_text(json.dumps(content))
