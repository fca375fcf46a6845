"""A manifest that matches a bundle which a test has changed: what a stranger could make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from n2kit.bundle.manifest import MANIFEST, Manifest, contents, model_fingerprint, read_recipe


def reseal(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / MANIFEST).read_text("utf8")) | {"files": contents(folder)} | changes
    manifest = Manifest.model_validate(content)
    content["fingerprint"] = model_fingerprint(read_recipe(folder), manifest.files, manifest.sources)
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf8")
