"""Images in requests: bytes and data URIs, and URLs of hosts that are allowed; never a file of the server's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image

from n2kit.data.columns import fields_of
from n2kit.data.fetch import fetch_image
from n2kit.data.image_source import URL, image_of
from n2kit.data.images import FORMATS
from n2kit.data.items import Item, item_of
from n2kit.serve.options import ServeOptions
from n2kit.serve.problems import Problem


def item_given(row: Mapping[str, Any], where: str, options: ServeOptions) -> Item:
    """Make an item of what a client sent; its image is fetched where its host is allowed, and looked at.

    Raises:
        Problem: an image that is not allowed, no image, or too large. BadInput: an unknown field, or one that is no text.
    """
    fields = fields_of(row, where)
    fields["image"] = None if not fields.get("image") else image_of(picture(fields["image"], where, options))
    return item_of({"id": where} | {name: value for name, value in fields.items() if value is not None})


def picture(value: Any, where: str, options: ServeOptions) -> bytes:
    """Read an image that a client sent: bytes, a data URI, base64, or a URL of an allowed host.

    Raises:
        Problem: it is none of these, no image, or has too many pixels.
    """
    content = value if isinstance(value, bytes) else _content(value, where, options)
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:
        pixels = options.max_pixels + 1
    except Exception:
        raise Problem(
            400, f"{where}: not an image of a format that is read ({', '.join(FORMATS)})", param=where
        ) from None
    if pixels > options.max_pixels:
        raise Problem(400, f"{where}: an image of more than {options.max_pixels:,} pixels", "make it smaller", where)
    return content


def _content(value: Any, where: str, options: ServeOptions) -> bytes:
    if not isinstance(value, str):
        raise Problem(400, f"{where}: the image is neither a data URI nor a URL", param=where)
    if URL.match(value):
        return fetch_image(value, options.image_hosts, max_bytes=options.max_body)
    head, comma, body = value.partition(",")
    if value[:5].lower() == "data:" and not (
        comma and head.lower().startswith("data:image/") and head.lower().endswith(";base64")
    ):
        raise Problem(400, f"{where}: no data URI of an image", "data:image/png;base64,…", where)
    try:
        content = base64.b64decode(body if comma else value, validate=True)
    except (ValueError, binascii.Error):
        content = b""
    if not content:
        hint = "send the image itself: data:image/png;base64,…; paths mean nothing to the server"
        raise Problem(400, f"{where}: {value[:40]!r} is no image", hint, where)
    return content
