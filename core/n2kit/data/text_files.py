"""Text files as people have them: compressed or not, in UTF-8, in UTF-16 by its byte-order mark, or in an encoding that is named."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from n2kit.data.column_map import FILE, mapped_encoding
from n2kit.errors import BadInput

GZIP = b"\x1f\x8b"
# Byte-order marks, which count over any --encoding; the longest first.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
SAMPLE = 1 << 20  # bytes that an encoding is guessed from
# Encodings to guess from, and the characters that a text in one mostly has beyond ASCII.
GUESSES = (
    ("shift_jis", re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\u3000-\u303f]"), re.compile(r"[\u3040-\u30ff]")),
    ("euc_kr", re.compile(r"[\uac00-\ud7a3\u3000-\u303f]"), re.compile(r"[\uac00-\ud7a3]")),
    (
        "gb18030",
        re.compile(r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]"),
        re.compile(r"[的了是不一有在人大小品用红黑白]"),
    ),
    ("big5", re.compile(r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]"), re.compile(r"[的了是不一有在人大小品用紅黑白]")),
    (
        "cp1251",
        re.compile(r"[\u0430-\u044f\u0451\u0410-\u042f\u2013\u2014\u00ab\u00bb]"),
        re.compile(r"[\u0430-\u044f]"),
    ),
)


@contextmanager
def opened(path: Path, encoding: str | None = None) -> Iterator[TextIO]:
    """Open a text file, unpacked if it is gzip: in `encoding`, or as `columns.yaml` says; else in UTF-8, or what its mark says.

    Raises:
        BadInput: a byte that is not of the encoding, with its line; a damaged gzip; no such encoding.
    """
    encoding, flag = encoding or mapped_encoding(path), encoding
    try:
        wanted = _marked(path) or encoding or _plain(path)
        with _unpacked(path) as raw, io.TextIOWrapper(raw, encoding=wanted, newline="") as file:
            yield file
    except UnicodeError as error:
        raise _wrong_encoding(path, encoding, flag, error) from None
    except LookupError as error:
        if encoding is None or "encoding" not in str(error):
            raise
        where = f"{path.parent / FILE}: {path.name}: encoding" if flag is None else "--encoding"
        raise BadInput(
            f"{where} {encoding}: no such encoding of texts", "for example cp1252, gb18030, utf-16"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: a damaged gzip file: {error}", "pack it again") from None


def encoding_notes(path: Path, encoding: str | None) -> list[str]:
    """Say that a text is read in the encoding that `columns.yaml` names: a file that was saved anew in another may still be read."""
    mapped = None if encoding else mapped_encoding(path)
    return [] if mapped is None or _marked(path) else [f"{path.name}: read as {mapped} ({FILE})"]


def first_bytes(path: Path, count: int = 4) -> bytes:
    """Read the first bytes of a file, unpacked if it is gzip."""
    try:
        with _unpacked(path) as file:
            return file.read(count)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: a damaged gzip file: {error}", "pack it again") from None


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    with path.open("rb") as file:
        packed = file.peek(2)[:2] == GZIP
        if not packed:
            yield file
            return
    with gzip.open(path, "rb") as unpacked:
        yield cast(BinaryIO, unpacked)


def _marked(path: Path) -> str | None:
    """Return the encoding that a file's byte-order mark names."""
    start = first_bytes(path)
    return next((name for mark, name in MARKS.items() if start.startswith(mark)), None)


def _plain(path: Path) -> str:
    """Return the encoding of a file that names none.

    Raises:
        BadInput: every other byte is zero, which UTF-8 would read as letters with nothing between them.
    """
    start = first_bytes(path, 64)
    if start.count(0) > len(start) // 3 and len(start) > 7:
        raise BadInput(f"{path}:1: UTF-16 without a byte-order mark", guess_encoding(start))
    return "utf-8"


def _wrong_encoding(path: Path, encoding: str | None, flag: str | None, error: UnicodeError) -> BadInput:
    """Make the error of a file that is not in its encoding; for UTF-8, with the line and a guess.

    flag: that of the command; without it, the encoding is that of `columns.yaml`, if any.
    """
    wanted = _marked(path) or encoding
    if wanted not in (None, "utf-8-sig"):
        hint = (
            f"correct it in {path.parent / FILE}, or give --encoding"
            if flag is None and wanted == encoding
            else "give another --encoding"
        )
        return BadInput(f"{path}: not {wanted}: {getattr(error, 'reason', error)}", hint)
    with _unpacked(path) as file:
        number, line = next(((n, text) for n, text in enumerate(file, 1) if not _is_utf8(text)), (1, b""))
        guess = guess_encoding(line + file.read(SAMPLE))
    return BadInput(f"{path}:{number}: not UTF-8", f"{guess}, or save the file as UTF-8")


def guess_encoding(sample: bytes) -> str:
    """Write the hint `--encoding NAME` for bytes that are not UTF-8."""
    if sample.count(0) > len(sample) // 8:
        return (
            "--encoding utf-16-le (a guess)"
            if sample[1::2].count(0) > sample[::2].count(0)
            else "--encoding utf-16-be (a guess)"
        )
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", sample)]
    if (
        runs and sum(n for n in runs if n > 1) > sum(runs) / 2
    ):  # a language of its own letters, and no accents among ASCII
        for name, letters, usual in GUESSES:
            text = sample.decode(name, "ignore")
            beyond = [c for c in text if ord(c) > 127]
            lost = len(sample) - len(text.encode(name, "ignore"))
            if beyond and lost <= 4 and usual.search(text) and len(letters.findall(text)) > 0.9 * len(beyond):
                return f"--encoding {name} (a guess)"
    return "--encoding cp1252 (a guess)"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf8")
    except UnicodeDecodeError:
        return False
    return True
