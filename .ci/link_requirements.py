"""Give an environment what a wheel requires, by hard links to the files of this one: link_requirements.py ENVIRONMENT WHEEL [EXTRA …]

Only distributions that the wheel requires, directly or through others, are linked; pip itself sees afterwards that none is missing.
"""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from collections.abc import Iterable
from email import message_from_bytes
from importlib.metadata import Distribution, distribution
from importlib.util import cache_from_source
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(texts: Iterable[str], extras: Iterable[str], found: dict[str, set[str]]) -> None:
    """Collect names of distributions, with their extras, that these requirements lead to."""
    for requirement in map(Requirement, texts):
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in ("", *extras)):
            continue
        name = canonicalize_name(requirement.name)
        known = found.get(name)
        if known is None or not requirement.extras <= known:
            found[name] = (known or set()) | requirement.extras
            required(distribution(name).requires or (), found[name], found)


def link(source: Distribution, site: Path) -> None:
    """Link a distribution's files but its scripts, which name another interpreter; with them what is compiled of them already."""
    for file in source.files or ():
        if ".." in file.parts or not (real := Path(str(source.locate_file(file)))).is_file():
            continue
        _link(real, site / file)
        if file.suffix == ".py" and (compiled := Path(cache_from_source(str(real)))).is_file():
            _link(compiled, Path(cache_from_source(str(site / file))))


def _link(real: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        try:
            os.link(real, target)
        except OSError:  # another file system
            shutil.copy2(real, target)


def _main(environment: str, wheel: str, *extras: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requires = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist", [])
    found: dict[str, set[str]] = {}
    own = [text for text in requires if Requirement(text).name != "n2kit"]
    selves = [Requirement(text) for text in requires if Requirement(text).name == "n2kit"]
    wanted = set(extras)
    for requirement in selves:  # extras that stand for others
        if requirement.marker and any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            wanted |= requirement.extras
    required(own, wanted, found)
    (site,) = (Path(environment) / "lib").glob("python*/site-packages")
    for name in sorted(found):
        link(distribution(name), site)
    print(f"{len(found)} distributions linked")


if __name__ == "__main__":
    _main(*sys.argv[1:])
