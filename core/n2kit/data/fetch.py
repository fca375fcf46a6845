"""Images fetched from the web into a folder: what is there is not fetched again, and no host is asked for much at a time."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Container, Iterable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from n2kit.data.image_source import FAILED, fetched_path
from n2kit.errors import BadInput
from n2kit.utils.files import atomic_write, write_text
from n2kit.utils.version import VERSION

PER_HOST, AT_ONCE = 2, 8  # connections
MOST_BYTES = 50_000_000  # of one image
TIMEOUT, LONGEST = 20.0, 120.0  # seconds without a byte, and of one image
TRIES, MOST_PAUSE = 3, 30.0  # a host that asks for a pause gets one, of so many seconds at most
BUSY = (429, 500, 502, 503, 504)
CHUNK = 1 << 16
HEADERS = {"User-Agent": f"n2kit/{VERSION} (catalogue images)", "Accept": "image/*"}
Progress = Callable[[int, int], None]


class _Refused(Exception):
    """An answer that will not be better the next time."""


def fetch_images(
    urls: Iterable[str], folder: Path, *, private: bool = False, progress: Progress | None = None
) -> dict[str, str]:
    """Fetch images into a folder, where `locate` finds them; return URL → reason of those that could not be.

    Only http and https are spoken, and only with public addresses, wherever a redirect leads.

    Args:
        private: addresses of this machine and of private networks are allowed, too.
    """
    wanted = [url for url in dict.fromkeys(urls) if not fetched_path(url, folder).is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    hosts: dict[str, list[str]] = defaultdict(list)
    for url in wanted:
        hosts[_host(url)].append(url)
    rooms = {host: threading.Semaphore(PER_HOST) for host in hosts}
    failed: dict[str, str] = {}
    opener = _opener(private)

    def one(url: str) -> None:
        with rooms[_host(url)]:
            reason = _fetch(opener, url, fetched_path(url, folder), private)
        note = fetched_path(url, folder)
        note = note.with_name(note.name + FAILED)
        if reason is None:
            note.unlink(missing_ok=True)
        else:
            failed[url] = reason
            write_text(note, reason, durable=False)

    in_turn = [url for url in chain.from_iterable(zip_longest(*hosts.values())) if url is not None]
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for done, _ in enumerate(pool.map(one, in_turn), 1):
            if progress:
                progress(done, len(wanted))
    finally:  # Ctrl-C does not wait for all that is not begun yet
        pool.shutdown(cancel_futures=True)
    return {url: failed[url] for url in wanted if url in failed}


def fetch_image(url: str, hosts: Container[str], *, max_bytes: int = MOST_BYTES, private: bool = False) -> bytes:
    """Fetch one image for somebody who is not trusted: from `hosts` (`name`, or `name:port`) alone, wherever a redirect leads.

    Args:
        private: addresses of this machine and of private networks are allowed, too.

    Raises:
        BadInput: its host is not allowed, or it cannot be fetched.
    """
    try:
        _check_host(url, hosts)
        if not private and _behind_proxy(url):
            _check_name(_host(url))
        return _download(_opener(private, hosts), url, max_bytes)
    except (_Refused, OSError, http.client.HTTPException, ValueError) as problem:
        cause = problem.reason if isinstance(problem, URLError) else problem
        private_one = isinstance(cause, _PrivateAddress)  # whose address is nobody's business
        reason = "it leads to a private address" if private_one else str(cause) or type(cause).__name__
        raise BadInput(f"image {url[:200]!r}: {reason}", "send the image itself, as a data URI") from None


def _check_host(url: str, hosts: Container[str]) -> None:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise _Refused("no URL") from None
    usual = port in (None, {"http": 80, "https": 443}.get(parts.scheme.lower()))
    if (f"{host}:{port}" if not usual else host) not in hosts:
        raise _Refused("images of this host are not fetched (--allow-image-host)")


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _fetch(opener: urllib.request.OpenerDirector, url: str, path: Path, private: bool) -> str | None:
    """Fetch one image to a path; return the reason if it cannot be."""
    reason = ""
    for attempt in range(TRIES):
        try:
            if not private and _behind_proxy(url):
                _check_name(_host(url))
            content = _download(opener, url)
            _check_image(content)
            with atomic_write(path, durable=False) as temporary:
                temporary.write_bytes(content)
            return None
        except _Refused as problem:
            return str(problem)
        except HTTPError as problem:
            reason = f"HTTP {problem.code} {problem.reason}".strip()
            if problem.code not in BUSY:
                return reason
            pause = problem.headers.get("Retry-After", "")
            time.sleep(min(float(pause) if pause.isdecimal() else 2.0**attempt, MOST_PAUSE) * (attempt < TRIES - 1))
        except (OSError, http.client.HTTPException, ValueError) as problem:  # URLError and timeouts are OSErrors
            cause = problem.reason if isinstance(problem, URLError) else problem
            if isinstance(cause, _PrivateAddress):
                return str(cause)
            reason = str(cause) or type(cause).__name__
            if isinstance(problem, ValueError):
                return reason
    return reason


def _download(opener: urllib.request.OpenerDirector, url: str, most: int | None = None) -> bytes:
    """Read an answer, up to the size and the time that are allowed."""
    request = urllib.request.Request(quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers=HEADERS)
    until, most = time.monotonic() + LONGEST, most or MOST_BYTES
    chunks: list[bytes] = []
    size = 0
    with opener.open(request, timeout=TIMEOUT) as answer:
        while chunk := answer.read1(CHUNK):
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise _Refused(f"larger than {most // 1_000_000} MB")
            if time.monotonic() > until:
                raise _Refused(f"slower than {LONGEST:.0f} s")
        if answer.length:  # what was announced, and did not come
            raise OSError("the connection broke off")
    return b"".join(chunks)


def _check_image(content: bytes) -> None:
    from PIL import Image

    from n2kit.data.images import FORMATS

    try:
        Image.open(BytesIO(content), formats=FORMATS).close()
    except Exception:
        what = "a web page" if content.lstrip()[:1] == b"<" else "nothing that is read as one"
        raise _Refused(f"not an image, but {what}" if content else "an empty answer") from None


class _PrivateAddress(OSError):
    """An address that is not on the public internet."""


def _check_address(address: str) -> None:
    if not ipaddress.ip_address(address.partition("%")[0]).is_global:
        raise _PrivateAddress(f"{address} is a private address, which is not asked (--fetch-private allows it)")


def _check_name(host: str) -> None:
    """Check what a host's name stands for, where a proxy makes the connection."""
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return  # the proxy knows it, or nobody
    for *_, address in found:
        _check_address(str(address[0]))


def _behind_proxy(url: str) -> bool:
    return urlsplit(url).scheme.lower() in urllib.request.getproxies() and not urllib.request.proxy_bypass(_host(url))


class _PublicHTTP(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _check_address(self.sock.getpeername()[0])


class _PublicHTTPS(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _check_address(self.sock.getpeername()[0])


class _HTTP(urllib.request.HTTPHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(http.client.HTTPConnection if request.has_proxy() else _PublicHTTP, request)


class _HTTPS(urllib.request.HTTPSHandler):
    def https_open(self, request: Any) -> Any:
        kind = http.client.HTTPSConnection if request.has_proxy() or request._tunnel_host else _PublicHTTPS
        return self.do_open(kind, request, context=ssl.create_default_context())


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects with the same check of where they lead; to other schemes urllib follows none."""

    def __init__(self, private: bool, hosts: Container[str] | None) -> None:
        self.private, self.hosts = private, hosts

    def redirect_request(self, request: Any, answer: Any, code: int, text: str, headers: Any, url: str) -> Any:
        if self.hosts is not None:
            _check_host(url, self.hosts)
        if not self.private and _behind_proxy(url):
            _check_name(_host(url))
        return super().redirect_request(request, answer, code, text, headers, url)


def _opener(private: bool, hosts: Container[str] | None = None) -> urllib.request.OpenerDirector:
    """Make an opener of http and https, and nothing else."""
    made = urllib.request.OpenerDirector()
    web = (urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()) if private else (_HTTP(), _HTTPS())
    others = (
        urllib.request.ProxyHandler(), _Redirects(private, hosts),
        urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
    )  # fmt: skip
    for handler in (*others, *web):
        made.add_handler(handler)
    return made
