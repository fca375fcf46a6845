"""Images as they are named or given: by a path, a URL, or as bytes, a data URI, an image of Pillow, an array."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from n2kit.data.values import is_null, text_of
from n2kit.errors import BadInput
from n2kit.utils.cache import cache_folder
from n2kit.utils.files import atomic_write, real_path

URL = re.compile(r"https?://", re.I)
_STORED = re.compile(r"content:([0-9a-f]{64})")
_NAMED = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif)(\?.*)?$", re.I)
_ENDING = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|avif)", re.I)
FAILED = ".failed"  # the reason why a URL was not fetched, beside where its image would be


def is_image_name(name: str) -> bool:
    """Tell whether a path or a URL ends as an image's does."""
    return _NAMED.search(name) is not None


class CalledImage(str):
    """A text that identifies an image, and `called`, the name by which its user knows it; empty where it has none."""

    called: str

    def __new__(cls, key: str, called: str) -> Self:
        made = super().__new__(cls, key)
        made.called = called
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.called


class GivenImage(CalledImage):
    """An image that is given and not named: a text that identifies it, with its `source`: bytes, a path, or an image of Pillow."""

    source: Any

    def __new__(cls, key: str, source: Any, called: str = "") -> Self:
        made = super().__new__(cls, key, called)
        made.source = source
        return made

    def __getnewargs__(self) -> tuple[str, Any, str]:  # type: ignore[override]
        return str(self), self.source, self.called


def name_of(image: str) -> str:
    """Name an image for people, as its user does; empty for one that was given without a name."""
    if isinstance(image, CalledImage):
        return image.called
    return "" if _STORED.fullmatch(image) else image


class NotFound(ValueError):
    """A name that leads to no image file that may be read; `hint`: what to do. `unnamed`: whatever the name is."""

    def __init__(self, reason: str, hint: str | None = None, *, unnamed: bool = False) -> None:
        super().__init__(reason)
        self.hint, self.unnamed = hint, unnamed


def image_of(value: Any) -> str:
    """Convert whatever is given as an image to a name, or to an image that holds itself.

    Raises:
        BadInput: it is neither.
    """
    if type(value) is str:
        name = text_of(value)
        return _data_uri(name) if name[:5].lower() == "data:" else name
    if isinstance(value, CalledImage):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        content = bytes(value)
        return GivenImage(f"content:{hashlib.sha256(content).hexdigest()}", content) if content else ""
    if isinstance(value, dict) and value and value.keys() <= {"bytes", "path"}:  # an image of the datasets library
        return image_of(value.get("path") if value.get("bytes") is None else value["bytes"])
    if isinstance(value, os.PathLike):
        return GivenImage(os.fspath(value), Path(value), os.fspath(value))
    if (pillow := sys.modules.get("PIL.Image")) is not None and isinstance(value, pillow.Image):
        return _of_pillow(value)
    if type(value).__module__ == "numpy" and hasattr(value, "shape") and value.shape:
        return _of_array(value)
    if is_null(value):
        return ""
    if isinstance(value, dict | list | tuple):
        raise BadInput(f"image is a {type(value).__name__}, not a text")
    if type(value).__module__.partition(".")[0] in ("torch", "numpy"):
        raise BadInput(
            f"image is a {type(value).__name__}: give a path, bytes, an image of Pillow or an array [H, W, 3] of 8 bits"
        )
    return text_of(value)


def stored_image(value: Any) -> Any:
    """Write an image that a file's cell holds into the cache, and return its name; anything else comes back as it is.

    A catalogue may hold more images than there is memory.
    """
    given = image_of(value)
    if not isinstance(given, GivenImage) or not isinstance(given.source, bytes):
        return given
    path = _stored_path(given)
    if not path.exists():
        with atomic_write(path, durable=False) as temporary:
            temporary.write_bytes(given.source)
    called = value.get("path") if isinstance(value, dict) else None
    return CalledImage(str(given), called) if isinstance(called, str) and called else str(given)


def needs_folder(name: str) -> bool:
    """Tell whether an image is looked for in the images folder."""
    return bool(name) and not isinstance(name, GivenImage) and _STORED.fullmatch(name) is None


def locate(name: str, folder: Path | None) -> Path:
    """Find the file of an image's name in a folder, and nowhere else.

    A name may be a path with slashes of either kind, begin with the folder's own name, be absolute, or a `file://` URL; what was
    fetched from a URL is found by it.

    Raises:
        NotFound: it lies outside, there is no folder, or it is a URL that was not fetched.
        OSError, ValueError, RuntimeError: it is no path.
    """
    if _STORED.fullmatch(name):
        return _stored_path(name)
    if URL.match(name):
        return _fetched(name, folder)
    path = url2pathname(urlsplit(name).path) if name[:7].lower() == "file://" else name
    if folder is None:
        where = Path(path).parent if Path(path).is_absolute() else "DIR"
        raise NotFound("has an image, but no images folder is given", f"--images {where}", unnamed=True)
    root = real_path(folder)
    direct = real_path(root / path)
    if direct.exists() and direct.is_relative_to(root):
        return direct
    if not direct.exists():
        for other in _readings(path, root):
            file = real_path(root / other)
            if file.is_relative_to(root) and file.is_file():
                return file
    if not direct.is_relative_to(root):
        raise NotFound("lies outside the images folder", "use a path inside it")
    if not direct.exists():
        readings = (str(direct.relative_to(root)), *_readings(path, root))
        if (alike := next(filter(None, (_alike(one, root) for one in readings)), None)) is not None:
            raise NotFound(f"is not there, and {alike!r} is: capitals count", "name it as it is called")
    return direct


def _readings(path: str, root: Path) -> Iterator[str]:
    """Yield what else a path that is not there may mean."""
    slashes = path.replace("\\", "/")
    decoded = unquote(slashes)
    composed = (unicodedata.normalize(form, decoded) for form in ("NFC", "NFD"))  # ü is one letter, or u and two dots
    for plain in dict.fromkeys((path, slashes, decoded, *composed, re.split("[?#]", decoded)[0])):
        parts = [part for part in PurePosixPath(plain).parts if part != "/"]
        yield "/".join(parts)
        for n, part in enumerate(parts[:-1], 1):
            if part.casefold() == root.name.casefold():
                yield "/".join(parts[n:])


def _alike(path: str, root: Path) -> str | None:
    """Find the file below a folder whose path is the same in other capitals."""
    found = root
    for part in PurePosixPath(path).parts:
        if part == ".." or not real_path(found).is_relative_to(root) or not found.is_dir():
            return None
        if not (found / part).exists():
            names = _by_casefold(found, found.stat().st_mtime_ns)
            part = names.get(part.casefold(), part)
        found /= part
    return found.relative_to(root).as_posix() if found.is_file() else None


@lru_cache(maxsize=8)
def _by_casefold(folder: Path, _changed: int) -> dict[str, str]:
    return {name.casefold(): name for name in os.listdir(folder)}  # noqa: PTH208 (names alone)


def fetched_path(url: str, folder: Path) -> Path:
    """Return where a URL's image is kept in a folder: by a hash of the URL, with the ending that it has."""
    ending = _ENDING.fullmatch(PurePosixPath(re.split("[?#]", url)[0]).suffix)
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}{ending[0].lower() if ending else ''}"


def _fetched(url: str, folder: Path | None) -> Path:
    if folder is not None:
        path = fetched_path(url, folder)
        if path.is_file():
            return real_path(path)
        failed = path.with_name(path.name + FAILED)
        if failed.is_file():
            raise NotFound(f"was not fetched: {failed.read_text(encoding='utf8')}", "the same command tries again")
    raise NotFound("is a URL", "--fetch-images DIR downloads such images")


def stored_folder() -> Path:
    """Return the folder of the images that came in the cells of files."""
    return cache_folder() / "images"


def _stored_path(name: str) -> Path:
    digest = name.removeprefix("content:")
    return stored_folder() / digest[:2] / digest


def _data_uri(text: str) -> str:
    head, comma, body = text.partition(",")
    try:
        if not comma or not head.lower().startswith("data:image/"):
            raise ValueError
        content = (
            base64.b64decode(body, validate=True)
            if head.lower().endswith(";base64")
            else unquote(body).encode("latin-1")
        )
    except (ValueError, binascii.Error):
        raise BadInput(f"image {text[:40]!r}… is no data URI of an image", "data:image/png;base64,…") from None
    return image_of(content)


def _of_pillow(image: Any) -> GivenImage:
    try:
        pixels = image.tobytes()
    except Exception:  # a damaged file, which is opened lazily: reading it says so, under the policy
        return GivenImage(f"image at {id(image):#x}", image)
    digest = hashlib.sha256(repr((image.mode, image.size)).encode() + pixels).hexdigest()
    return GivenImage(f"pixels:{digest}", image)


def _of_array(array: Any) -> GivenImage:
    from PIL import Image

    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not fits or str(array.dtype) != "uint8":
        shape = ", ".join(map(str, array.shape))
        raise BadInput(f"image is an array [{shape}] of {array.dtype}", "an array [H, W, 3] of uint8")
    return _of_pillow(Image.fromarray(array))
