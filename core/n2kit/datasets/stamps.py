"""Tux Paint's stamps as a data set: photographs with descriptions, out of Debian's package tuxpaint-stamps-default.

A positive pair are two stamps of one leaf folder ("animals/birds"), which people sorted. Folders of one subject ("food/fruit",
"food/fruit/cartoon") are in the same split, so that no near twin of a test item is trained on. The same input and options give
the same files. What is written is the package's own material under its own licence: it is no part of n2kit.
"""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from n2kit.errors import BadInput, Unavailable

PACKAGE = "tuxpaint-stamps-default"
ROOT = PurePosixPath("usr/share/tuxpaint/stamps")
COPYRIGHT = PurePosixPath("usr/share/doc/tuxpaint-stamps-default/copyright")
GLYPHS = "symbols"  # letters, digits, notes: black shapes, no photographs
DRAWN = {"cartoon", "toys", "plastic"}  # last folder of a path; without it, the subject
SHARES = {"train": 0.5, "val": 0.1, "test": 0.4}  # of the stamps
NOTICE = """The pictures and descriptions in this folder are stamps of Tux Paint, copyright 2002-2022 by Bill Kendrick and many others,
under the GNU General Public License, version 2. Source: Debian package tuxpaint-stamps-default, https://tuxpaint.org. The pairs were
derived from the package's folders by n2kit. The package's own copyright file follows.

"""
Pair = tuple[str, str]


@dataclass(frozen=True)
class Stamp:
    """A picture, what it is called in each language, and the folder that it lies in."""

    path: PurePosixPath
    image: bytes
    texts: dict[str, str]

    @property
    def id(self) -> str:
        return self.path.with_suffix("").as_posix()

    @property
    def folder(self) -> str:
        return self.path.parent.as_posix()

    @property
    def subject(self) -> str:
        """The folder, whatever its things are made of."""
        return (self.path.parent.parent if self.path.parent.name in DRAWN else self.path.parent).as_posix()


def read_package(source: Path) -> dict[PurePosixPath, bytes]:
    """Pictures, descriptions and the copyright of the package, by their path in it.

    Raises:
        BadInput: `source` is neither the package nor a folder that it is unpacked in.
    """
    wanted = (".png", ".txt")
    found = {
        path: content
        for path, content in (_unpacked(source) if source.is_dir() else _packed(source))
        if path == COPYRIGHT or (path.is_relative_to(ROOT) and path.suffix in wanted)
    }
    if COPYRIGHT not in found or len(found) < 2:
        raise BadInput(f"{source} holds no stamps", f"apt-get download {PACKAGE}, and give the .deb")
    return found


def _unpacked(folder: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    for file in sorted(folder.rglob("*")):
        if (file.suffix in (".png", ".txt") or file.name == COPYRIGHT.name) and file.is_file():
            yield PurePosixPath(file.relative_to(folder).as_posix()), file.read_bytes()


def _packed(deb: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Files of a .deb: an `ar` archive with a tar in it. Nothing is written to disk, so no path of it can do harm."""
    try:
        with deb.open("rb") as file:
            data = _member(file, b"data.tar")
            with tarfile.open(fileobj=data) as archive:
                for entry in archive:
                    if entry.isfile() and (content := archive.extractfile(entry)) is not None:
                        yield PurePosixPath(entry.name.removeprefix("./")), content.read()
    except (OSError, ValueError, tarfile.TarError) as error:
        hint = "unpack it with `dpkg-deb -x FILE FOLDER`, and give the folder"
        raise BadInput(f"{deb} cannot be read: {error}", hint) from None


def _member(file: io.BufferedReader, name: bytes) -> io.BytesIO:
    """The first member of an `ar` archive whose name begins like that."""
    if file.read(8) != b"!<arch>\n":
        raise ValueError("not a Debian package")
    while len(header := file.read(60)) == 60:
        size = int(header[48:58])
        if header.startswith(name):
            return io.BytesIO(file.read(size))
        file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError(f"no {name.decode()} in it")


def stamps_of(files: dict[PurePosixPath, bytes], *, drawings: bool) -> list[Stamp]:
    """Pictures that have a description and share their folder with another one, in the order of their paths."""
    found = []
    for file in sorted(files):
        path, text = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file, file.with_suffix(".txt")
        if file.suffix != ".png" or text not in files or path.parts[0] == GLYPHS:
            continue  # a mirrored picture has no description of its own
        if path.parent.name in DRAWN and not drawings:
            continue
        if texts := descriptions(files[text].decode("utf8", "replace")):
            found.append(Stamp(path, files[file], texts))
    company: dict[str, int] = defaultdict(int)
    for stamp in found:
        company[stamp.folder] += 1
    return [stamp for stamp in found if company[stamp.folder] > 1]


def descriptions(text: str) -> dict[str, str]:
    """Language → description: English on the first line, then `fr.utf8=Une pomme.`"""
    first, *rest = text.splitlines() or [""]
    named = (line.partition(".utf8=") for line in rest)
    found = {"en": first.strip()} | {code.strip(): words.strip() for code, mark, words in named if mark}
    return {code: words for code, words in found.items() if words} if found["en"] else {}


def split_of(stamps: list[Stamp], seed: int) -> dict[str, str]:
    """Subject → split: subjects in an order drawn by the seed, each to the split that lacks most of its share."""
    sizes: dict[str, int] = defaultdict(int)
    for stamp in stamps:
        sizes[stamp.subject] += 1
    subjects = sorted(sizes)
    random.Random(f"{seed} split").shuffle(subjects)
    held = dict.fromkeys(SHARES, 0)
    chosen = {}
    for subject in sorted(
        subjects, key=lambda name: -sizes[name]
    ):  # the largest first; a stable sort keeps what was drawn
        split = max(SHARES, key=lambda name: SHARES[name] * len(stamps) - held[name])
        chosen[subject] = split
        held[split] += sizes[subject]
    return chosen


def pairs_of(stamps: Iterable[Stamp], seed: int) -> list[Pair]:
    """Every ordered pair of stamps of one folder.

    Those that share no stamp come first, so that the protocol notellm2, which reads in order and takes a stamp once, finds as
    many as there can be; the protocol standard takes all.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for stamp in stamps:
        folders[stamp.folder].append(stamp.id)
    matched: list[Pair] = []
    for folder in sorted(folders):
        drawn = random.Random(f"{seed} {folder}").sample(folders[folder], len(folders[folder]))
        matched += zip(drawn[::2], drawn[1::2], strict=False)
    every = [(a, b) for folder in sorted(folders) for a in folders[folder] for b in folders[folder] if a != b]
    return list(dict.fromkeys(matched + every))


def item_of(stamp: Stamp, split: str, languages: list[str], seed: int) -> dict[str, object]:
    """A row of items.jsonl. Of several languages the seed draws one; a stamp that has no such description is English."""
    language = random.Random(f"{seed} {stamp.id}").choice(languages)
    language = language if language in stamp.texts else "en"
    return {
        "id": stamp.id, "image": image_name(stamp), "title": stamp.texts[language], "topics": [], "content": "", "category": "",
        "lang": language, "folder": stamp.folder, "split": split,
    }  # fmt: skip


def image_name(stamp: Stamp) -> str:
    return stamp.id.replace("/", "_") + ".png"


def write(stamps: list[Stamp], licence: bytes, out: Path, languages: list[str], seed: int) -> dict[str, int]:
    """The data set; returns how many items and pairs there are of each split."""
    splits = split_of(stamps, seed)
    (out / "images").mkdir(parents=True)
    rows = [item_of(stamp, splits[stamp.subject], languages, seed) for stamp in stamps]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / "items.jsonl").write_text("".join(lines), encoding="utf8")
    for stamp in stamps:
        (out / "images" / image_name(stamp)).write_bytes(stamp.image)
    counts = {"items": len(rows)}
    for split in SHARES:
        own = [stamp for stamp in stamps if splits[stamp.subject] == split]
        pairs = pairs_of(own, seed)
        if split != "test":  # for training, a pair and its mirror image say the same
            pairs = list({frozenset(pair): pair for pair in reversed(pairs)}.values())[::-1]
        _csv(out / f"{split}.csv", [("query", "target"), *pairs])
        counts |= {f"{split} items": len(own), f"{split} pairs": len(pairs)}
    _csv(out / "pool.csv", [("id",), *((stamp.id,) for stamp in stamps)])
    (out / "NOTICE").write_bytes(NOTICE.encode() + licence)
    return counts


def _csv(file: Path, rows: Iterable[tuple[str, ...]]) -> None:
    with file.open("w", encoding="utf8", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows(rows)


def write_stamps(source: Path | None, out: Path, seed: int = 0) -> dict[str, int]:
    """Write the photographs with their English descriptions as a data folder; return how many rows there are of what.

    Args:
        source: the .deb, or a folder that it is unpacked in; None: apt-get downloads it, 161 MB.

    Raises:
        BadInput: `out` exists, or `source` holds no stamps. Unavailable: there is no apt-get, or it cannot download.
    """
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out} exists", "give another -o")
    with tempfile.TemporaryDirectory() as downloads:
        files = read_package(source or _downloaded(Path(downloads)))
    return write(stamps_of(files, drawings=False), files[COPYRIGHT], out, ["en"], seed)


def _downloaded(folder: Path) -> Path:
    if shutil.which("apt-get") is None:
        raise Unavailable(
            "there is no apt-get to download the stamps with", f"--from {PACKAGE}_….deb, of any Debian mirror"
        )
    done = subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode or not (found := list(folder.glob("*.deb"))):
        reason = (done.stderr.strip().splitlines() or ["apt-get gave no reason"])[-1]
        raise Unavailable(f"{PACKAGE} cannot be downloaded: {reason}", f"apt-get update, or --from {PACKAGE}_….deb")
    return found[0]
