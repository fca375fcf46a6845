"""A bundle from a model hub."""

from __future__ import annotations

from pathlib import Path

from n2kit.bundle.manifest import KIND, MANIFEST, Manifest, read_manifest, read_recipe, verify
from n2kit.errors import BadInput
from n2kit.hub.repository import check_name, plain_errors
from n2kit.utils.files import disk_full_guard
from n2kit.utils.folders import atomic_dir, ensure_writable
from n2kit.utils.locks import output_lock


def pull(
    repository: str, out: str | Path, *, revision: str | None = None, force: bool = False, endpoint: str | None = None
) -> Manifest:
    """Download a bundle into a folder, after every file has been checked against its manifest.

    Nothing that was downloaded is run: a bundle is weights, settings and words.

    Args:
        revision: a branch, a tag or a commit; default: the newest. endpoint: of the hub.

    Raises:
        BadInput: no such repository, none of a bundle, a damaged one, or something in the way and `force` not set. Unavailable: the
            hub is not reached.
    """
    from huggingface_hub import HfApi, snapshot_download

    out = Path(out)
    check_name(repository)
    ensure_writable(out, KIND, force=force)
    with disk_full_guard(f"{out} cannot be written", "free some space; the same command tries again"), output_lock(out):
        with plain_errors(repository):
            api = HfApi(endpoint=endpoint)
            info = api.model_info(repository, revision=revision)
        if MANIFEST not in {file.rfilename for file in info.siblings or ()}:
            raise BadInput(
                f"{repository} is no bundle of n2kit: it has no {MANIFEST}", "n2kit hub push BUNDLE ORGANISATION/NAME"
            )
        with atomic_dir(out) as staged:
            with plain_errors(repository):
                snapshot_download(repository, revision=info.sha, local_dir=staged, endpoint=endpoint)
            _remove_foreign(staged)
            manifest = read_manifest(staged)
            verify(staged, manifest, read_recipe(staged))
    return manifest


def _remove_foreign(staged: Path) -> None:
    """Remove what hubs put beside a bundle: their own notes, and the downloader's."""
    import shutil

    shutil.rmtree(staged / ".cache", ignore_errors=True)
    (staged / ".gitattributes").unlink(missing_ok=True)
