"""Rows of a tar of samples, as the WebDataset library has them: the files of one name before the first dot are one row."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from n2kit.data.columns import SYNONYMS, normal
from n2kit.data.image_source import GivenImage, is_image_name
from n2kit.data.packed import COLUMN, DIGEST, Span, content_name
from n2kit.data.tables import NumberedRow
from n2kit.errors import BadInput
from n2kit.utils.files import parse_json

OTHER = "img"  # the ending of a picture whose format has none that is known
MOST_TEXT = 100_000_000  # bytes of a sample's JSON or text
Members = dict[str, tarfile.TarInfo]  # of a sample, by ending


def tar_rows(path: Path, problems: list[str]) -> Iterator[NumberedRow]:
    """Yield the samples of a tar, numbered from 1: the keys of `.json`, `.txt` as content, and a picture, which stays in the tar.

    Of several pictures of a sample, the first in the tar counts, and they are listed. A sample without an id in its JSON is called by
    its name. What has another ending is no column that is read.

    Raises:
        BadInput: no tar, or a damaged or compressed one.
    """
    number = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for number, (name, members) in enumerate(_samples(archive), 1):
                try:
                    row = _row(archive, path.resolve(), name, members)
                except BadInput as problem:
                    problems.append(f"{path}:{number}: {problem.message}")
                    continue
                yield number, row
    except tarfile.ReadError as error:
        what = f"damaged after sample {number}" if number else "not a tar"
        raise BadInput(f"{path}: {what}: {error}".splitlines()[0], "a tar that is not compressed") from None
    except tarfile.TarError as error:
        raise BadInput(f"{path}: {error}".splitlines()[0], "write the tar again") from None


def _samples(archive: tarfile.TarFile) -> Iterator[tuple[str, Members]]:
    """Group the files that follow each other under one name."""
    before, members = "", Members()
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # it would remember a million of them
        if not member.isreg() or member.issparse():
            continue
        path = PurePosixPath(member.name)
        base, _, ending = path.name.partition(".")
        name = str(path.parent / base)
        if name != before and members:
            yield before, members
            members = Members()
        before = name
        members[ending.lower()] = member
    if members:
        yield before, members


def _row(archive: tarfile.TarFile, path: Path, name: str, members: Members) -> Mapping[str, Any]:
    """Make the row of a sample.

    Raises:
        BadInput: its JSON is no object.
    """
    row: dict[str, Any] = {}
    if (described := members.pop("json", None)) is not None:
        found = parse_json(_content(archive, described), described.name)
        if not isinstance(found, dict):
            raise BadInput(f"{described.name}: not a JSON object")
        row |= found
    digest = row.pop(DIGEST, None)
    if not any(normal(key) == "id" or normal(key) in SYNONYMS["id"] for key in row):
        row["id"] = name
    pictures = [member for ending, member in members.items() if is_image_name(f".{ending}") or ending == OTHER]
    if pictures:
        first, *others = pictures
        content = f"content:{digest}" if digest else content_name(_content(archive, first, 1 << 31))
        called = row[COLUMN] if type(row.get(COLUMN)) is str else None
        image = GivenImage(content, Span(path, first.offset_data, first.size), called or first.name)
        row[COLUMN] = [image, *(other.name for other in others)] if others else image
    for ending, member in members.items():
        if member in pictures:
            continue
        if ending == "txt":
            row.setdefault("content", _content(archive, member).decode("utf8", "replace"))
        else:
            row.setdefault(ending, None)
    return row


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int = MOST_TEXT) -> bytes:
    if member.size > most:
        raise BadInput(f"{member.name}: {member.size:,} bytes are more than a sample may have")
    file = archive.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read()
