"""Weights from a model hub: downloaded once, found in its cache afterwards, with reasons in place of tracebacks."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from n2kit.errors import BadInput, Unavailable
from n2kit.utils.files import read_json

NOT_NEEDED = ["consolidated*"]  # the same weights again, in their author's own layout
HUB_PROBE_SECONDS = 3.0
OFFLINE_WAYS = "offline: NAME@file:FOLDER, NAME@pkg:DISTRIBUTION/PATH, or NAME:tiny for a random model of the family"
LOGIN = "`hf auth login`, or HF_TOKEN=… in the environment"
WEIGHTS = "*.safetensors"


def from_hub(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Return the folder of a repository's files, from the cache or downloaded; a broken download goes on where it stopped.

    Raises:
        BadInput: no such name, repository or revision.
        Unavailable: the hub cannot be reached or refuses, or the repository holds pickles alone.
    """
    where = f"hf:{repo}" + (f"@{revision}" if revision else "")
    if (cached := _cached(repo, revision, patterns)) is not None:
        return cached
    if reason := hub_problem():
        raise Unavailable(f"weights {where} are not cached and the hub cannot be reached ({reason})", OFFLINE_WAYS)
    try:
        folder = _snapshot(repo, revision, patterns)
        if WEIGHTS in patterns and not any(folder.glob(WEIGHTS)):
            folder = _snapshot(repo, _conversion(repo, where), patterns)
        return folder
    except Unavailable:
        raise
    except Exception as error:  # of whichever HTTP library the hub's client is built on
        raise _refused(error, repo, revision) from None


def _snapshot(repo: str, revision: str | None, patterns: Sequence[str], *, cached: bool = False) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            repo, revision=revision, allow_patterns=list(patterns), ignore_patterns=NOT_NEEDED, local_files_only=cached
        )
    )


def _cached(repo: str, revision: str | None, patterns: Sequence[str]) -> Path | None:
    """Find a whole copy in the cache: all files of the index, and of the hub's listing where the client has kept it."""
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for one in (revision, *_conversions(repo, revision)):
        try:
            folder = _snapshot(repo, one, patterns, cached=True)
        except HFValidationError as error:
            raise BadInput(f"{repo!r} is no hub name: {error}".splitlines()[0], "write hf:organisation/name") from None
        except LocalEntryNotFoundError:
            continue
        # Another program may have cached a part of it; a folder without what is asked for is no answer.
        if any(folder.glob(WEIGHTS if WEIGHTS in patterns else patterns[0])) and _is_whole(folder):
            return folder
    return None


def _is_whole(folder: Path) -> bool:
    """Tell whether every file is there that an index of shards names."""
    for index in folder.glob("*.safetensors.index.json"):
        try:
            names = set(dict(read_json(index)["weight_map"]).values())
        except (BadInput, KeyError, TypeError, ValueError):
            return False
        if not all((folder / str(name)).is_file() for name in names):
            return False
    return True


def _conversions(repo: str, revision: str | None) -> list[str]:
    """List the offers of safetensors weights (see `_conversion`) that were downloaded before."""
    from huggingface_hub import constants

    kept = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "refs" / "refs" / "pr"
    return [] if revision else [f"refs/pr/{file.name}" for file in sorted(kept.glob("*"))]


def _conversion(repo: str, where: str) -> str:
    """Find the revision in which the hub's own bot offers an old repository's weights as safetensors.

    Raises:
        Unavailable: there is none; n2kit opens no pickles of strangers.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        for offer in HfApi().get_repo_discussions(repo, author="SFconvertbot", discussion_type="pull_request"):
            if offer.git_reference:
                return offer.git_reference
    except HfHubHTTPError:  # a repository may have its discussions closed
        pass
    raise Unavailable(
        f"{where} holds no safetensors weights, and n2kit opens no pickles",
        "save it once with transformers' save_pretrained, then NAME@file:FOLDER",
    )


def _refused(error: Exception, repo: str, revision: str | None) -> BadInput | Unavailable:
    """Say why a download failed, and what to do about it."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"hf:{repo}" + (f"@{revision}" if revision else "")
    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, GatedRepoError):
        what = f"{where} is gated: its owner wants your consent to its terms first"
        return Unavailable(what, f"agree on {page}, then {LOGIN}; or NAME@file:FOLDER")
    if isinstance(error, RepositoryNotFoundError):
        return BadInput(f"the hub has no {repo}, or it is private", f"check the name; for a private one {LOGIN}")
    if isinstance(error, RevisionNotFoundError):
        return BadInput(f"{repo} has no revision {revision}", f"a branch, a tag or a commit of {page}")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        address = getattr(getattr(error, "response", None), "url", "")
        name = urlsplit(str(address)).path.rpartition("/")[2] or "a file"
        return Unavailable(f"{where}: {name} is listed, and the hub does not have it", "another revision, or try later")
    if isinstance(error, HfHubHTTPError) and getattr(error.response, "status_code", 0) in (401, 403):
        return Unavailable(f"the hub refused {where} ({error.response.status_code})", f"{LOGIN}; or NAME@file:FOLDER")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return Unavailable(f"downloading {where} failed: {reason}", "run the same command again to go on")


def hub_problem() -> str | None:
    """Return the reason why the hub cannot be reached, None if it can.

    It takes a few seconds at most; the hub's client alone retries for half a minute.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    address = urlsplit(proxy or constants.ENDPOINT)
    port = address.port or (443 if address.scheme == "https" else 80)
    outcome: list[str | None] = [f"no answer from {address.hostname} within {HUB_PROBE_SECONDS:.0f} s"]

    def probe() -> None:
        try:
            socket.create_connection((address.hostname or "", port), timeout=HUB_PROBE_SECONDS).close()
            outcome[0] = None
        except OSError as error:
            outcome[0] = f"{address.hostname}: {error.strerror or error}"

    # A thread, because name resolution has no time limit of its own.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(HUB_PROBE_SECONDS)
    return outcome[0]
