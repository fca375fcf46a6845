"""n2kit merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say


def merge(
    bundle: options.TunedBundle,
    out: Annotated[Path, typer.Option("-o", "--out", help="The merged bundle's folder.")],
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Merge a bundle's adapters into its weights: the same vectors but for rounding, and no adapter left.

    The parts that had one are frozen in the merged bundle; n2kit train --tune says otherwise.

    \b
    Examples:
      n2kit merge runs/lora/bundle -o models/merged
      n2kit merge models/tiny-lora -o models/merged-tiny --json
    """
    from n2kit.bundle.manifest import KIND
    from n2kit.utils.folders import ensure_writable

    ensure_writable(out, KIND, force=force)
    from n2kit.bundle.io import merge as merge_bundle

    manifest = merge_bundle(bundle, out, force=force)
    if json:
        document({"bundle": str(out), "fingerprint": manifest.fingerprint, "merged": manifest.trained["merged"]})
    say(f"wrote {out} (model {manifest.fingerprint})")
