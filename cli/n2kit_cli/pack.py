"""n2kit pack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from n2kit_cli import options
from n2kit_cli.output import document, say


def pack(
    bundle: options.ReferringBundle,
    out: Annotated[Path, typer.Option("-o", "--out", help="The complete bundle's folder.")],
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Copy a bundle together with the weights that it refers to: the same model, to be moved anywhere.

    \b
    Examples:
      n2kit pack runs/lora/bundle -o models/complete
      n2kit pack models/tiny -o models/tiny-complete --json
    """
    from n2kit.bundle.io import pack as pack_bundle
    from n2kit.bundle.io import read_manifest

    was = read_manifest(bundle)
    manifest = pack_bundle(bundle, out, force=force)
    if manifest.fingerprint != was.fingerprint:
        old = was.format < manifest.format  # whose fingerprint covered less
        reason = "an earlier version wrote it" if old else "other versions of its packages write its files otherwise"
        say(f"note: {bundle} was model {was.fingerprint}: {reason}. Embed and index again with {out}")
    if json:
        document({"bundle": str(out), "fingerprint": manifest.fingerprint, "copied": sorted(was.sources)})
    say(f"wrote {out} (model {manifest.fingerprint}, copied: {', '.join(was.sources) or 'nothing, it was complete'})")
