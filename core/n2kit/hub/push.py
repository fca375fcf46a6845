"""A bundle to a model hub."""

from __future__ import annotations

from pathlib import Path

from n2kit.bundle.manifest import MANIFEST, README, RECIPE, Manifest, read_manifest, read_recipe, verify
from n2kit.errors import BadInput
from n2kit.hub.repository import check_name, plain_errors
from n2kit.utils.folders import bundle_folder

# Licences under which anybody may hand weights on, changed ones too. Of others, people have to read.
FREE = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-sa-4.0", "isc", "unlicense",
)  # fmt: skip


def push(
    bundle: str | Path, repository: str, *, private: bool = False, have_right: bool = False, endpoint: str | None = None,
    message: str = "",
) -> str:  # fmt: skip
    """Upload a bundle, checked file by file, with its card; return the address of the commit.

    Args:
        repository: ORGANISATION/NAME; it is made where it is not there.
        have_right: the weights in the bundle may be handed on, whatever n2kit knows of their licence.
        endpoint: of the hub; default: huggingface_hub's own (HF_ENDPOINT).

    Raises:
        BadInput: no bundle, a damaged one, one that refers to weights which nobody else reaches, or weights whose licence may forbid it.
        Unavailable: the hub is not reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = bundle_folder(bundle)
    check_name(repository)
    manifest = read_manifest(folder)
    verify(folder, manifest, read_recipe(folder))
    _check_references(manifest, folder)
    if not have_right:
        _check_licences(manifest)
    names = sorted({MANIFEST, RECIPE, *manifest.files} - {README})
    operations = [CommitOperationAdd(name, str(folder / name)) for name in names]
    operations.append(CommitOperationAdd(README, card(folder, repository).encode()))
    with plain_errors(repository):
        api = HfApi(endpoint=endpoint)
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(
            repository, operations, commit_message=message or f"n2kit model {manifest.fingerprint}"
        )
    return str(done.commit_url)


def card(folder: Path, repository: str) -> str:
    """Read a bundle's card, with the way to get it from the hub."""
    text = (folder / README).read_text("utf8")
    return text.replace("```bash\n", f"```bash\nn2kit hub pull {repository} -o BUNDLE\n", 1)


def _check_references(manifest: Manifest, folder: Path) -> None:
    for kind, source in manifest.sources.items():
        if not source.weights.startswith("hf:"):
            raise BadInput(
                f"the {kind} of {folder} is at {source.weights}, which nobody else reaches",
                f"n2kit pack {folder} -o PACKED makes a whole copy to push",
            )


def _check_licences(manifest: Manifest) -> None:
    """Check that the weights in the bundle may be handed on; what it refers to stays where it is.

    Raises:
        BadInput: a licence may forbid it, or is not known.
    """
    for kind, facts in manifest.parts.items():
        licence = facts.get("licence")
        if facts.get("weights") == "random" or kind in manifest.sources or str(licence).lower() in FREE:
            continue
        what = f"under licence {licence}" if licence else "under a licence that n2kit does not know"
        raise BadInput(
            f"the {kind}'s weights ({facts.get('weights')}) are {what}", "read it, and then --i-have-the-right"
        )
