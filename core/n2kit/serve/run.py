"""A server that runs until it is asked to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from n2kit.errors import BadInput, N2kitError, Unavailable
from n2kit.serve.app import make_app
from n2kit.serve.options import ServeOptions
from n2kit.serve.state import State

LOG = logging.getLogger("n2kit")


def serve(
    options: ServeOptions, *, notify: Callable[[str], None] = LOG.info, ready: Callable[[str], None] = LOG.info
) -> None:
    """Serve until SIGTERM or Ctrl-C, and finish what was taken; SIGHUP loads the indexes again.

    Args:
        notify: called with lines for people while loading. ready: called with the address once requests are answered.

    Raises:
        BadInput: what `State` raises. Unavailable: the port is taken, or not ours to take.
    """
    with _listening(options.host, options.port) as listener:  # before minutes of loading
        state = State(options, notify)
        config = uvicorn.Config(
            make_app(state), log_config=None, access_log=False, server_header=False, proxy_headers=False,
            timeout_graceful_shutdown=options.grace, timeout_keep_alive=30, limit_concurrency=None,
        )  # fmt: skip
        _log_lines()
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has stopped, and hands the signal on
            asyncio.run(_serve(_Server(config, state), listener, ready))


class _Server(uvicorn.Server):
    """uvicorn, whose state knows at once that the server is to stop."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self.n2kit = state

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.n2kit.stopping = True
        super().handle_exit(sig, frame)


async def _serve(server: _Server, listener: socket.socket, ready: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, lambda: loop.run_in_executor(None, _reload, server.n2kit))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not running.done():
        await asyncio.sleep(0.02)
    host, port = listener.getsockname()[:2]
    ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    await running


def _reload(state: State) -> None:
    with contextlib.suppress(N2kitError):  # it is logged, and the old indexes go on
        LOG.warning("reloaded: %s", ", ".join(f"{name} {count:,}" for name, count in state.reload().items()))


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """Listen at an address; 0 is any free port.

    Raises:
        BadInput: no such address. Unavailable: it is taken, or not ours to take.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as problem:
        raise BadInput(f"--host {host}: {problem.strerror}", "127.0.0.1, or 0.0.0.0 for all addresses") from None
    listener = socket.socket(family)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(2048)
        except OSError as problem:
            taken = problem.errno == errno.EADDRINUSE
            hint = (
                "give another --port, or 0 for any that is free"
                if taken
                else "a --port from 1024 on, an address of this machine"
            )
            raise Unavailable(f"cannot listen at {host}:{port}: {problem.strerror}", hint) from None
        yield listener


def _log_lines() -> None:
    """Write the log of requests, a line of JSON each, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name, level in (("n2kit.serve", logging.INFO), ("n2kit", logging.WARNING), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if name != "n2kit.serve":  # whose lines come to n2kit's
            logger.addHandler(handler)
