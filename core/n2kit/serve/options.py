"""The options of a server: what it serves, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServeOptions:
    """The options of one server.

    indexes: name → index folder. bundles: folders of bundles; each answers for the indexes that it made.
    items, images: the catalogue's file and folder of pictures; without them, what the indexes remember.
    read_only: requests put no items into an index, and take none out.
    feedback: the pairs file that votes are written to; None: no votes are taken.
    image_hosts: hosts, `name` or `name:port`, that images may be fetched from; none by default.
    hosts: further names that the server may be called by. origins: of pages elsewhere that may call it (CORS).
    max_concurrent: requests at work; beyond them the answer is 429. max_inputs: of one request. max_body: bytes of one.
    max_pixels: of one image. batch_tokens, batch_wait: tokens of one model call, and seconds that it waits for company.
    """

    indexes: dict[str, Path] = field(default_factory=dict)
    bundles: tuple[Path, ...] = ()
    items: Any = None  # n2kit.data.items.Items
    images: Path | None = None
    feedback: Path | None = None
    device: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    image_hosts: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    read_only: bool = False
    max_concurrent: int = 128
    max_inputs: int = 256
    max_body: int = 32_000_000
    max_pixels: int = 50_000_000
    batch_tokens: int = 8192
    batch_wait: float = 0.005
    grace: int = 30  # seconds that open requests have once the server is asked to stop
