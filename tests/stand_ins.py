"""Forks in the place of new interpreters that others start: multiprocessing's fork server, torchrun's ranks.

It imports nothing heavy: some of it runs in an interpreter that only asks for a fork, and stands for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import util
from pathlib import Path
from typing import Any, NoReturn


def fork(server: str, program: dict[str, Any], files: Sequence[int]) -> tuple[int, socket.socket]:
    """Let a server fork: `program` is what `become` takes, and `numbers`, by which it knows these open files."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server)
    socket.send_fds(connection, [b"+"], files)
    connection.sendall(json.dumps(program).encode() + b"\n")
    return int(read_line(connection)), connection


def read_line(connection: socket.socket) -> bytes:
    """Read the next line; what comes behind it is left."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        assert byte, "the server of forks has ended"
        line += byte
    return line


def quick_fork_servers(server: Callable[[], str]) -> None:
    """Let the server of forks that multiprocessing starts be a fork of the server of this name: its own would import the same, for seconds."""
    plain = util.spawnv_passfds

    def spawn(path: str, arguments: Sequence[Any], numbers: Sequence[int]) -> int:
        if "multiprocessing.forkserver" not in str(arguments[-1]):
            return plain(path, arguments, numbers)  # type: ignore[no-any-return]
        name = server()
        started = os.fork()
        if started == 0:
            unloaded = f"import sys; sys.modules.pop('n2kit_cli.main', None); {arguments[-1]}"  # programs are run under this name
            stand_for(name, ["-c", unloaded], [0, 1, 2, *numbers])
        return started

    util.spawnv_passfds = spawn


def stand_for(server: str, arguments: Sequence[str], numbers: Sequence[int] = (0, 1, 2)) -> NoReturn:
    """Start a fork with this folder, environment and open files, and be there in its place until it ends."""
    code = 1
    try:
        program = {"arguments": arguments, "cwd": str(Path.cwd()), "env": dict(os.environ), "numbers": numbers}
        pid, connection = fork(server, program, numbers)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(pid, number))
        for file in {*map(int, os.listdir("/proc/self/fd"))} - {connection.fileno()}:  # noqa: PTH208
            with contextlib.suppress(OSError):
                os.close(file)  # an end of a pipe that is held here would keep it open
        code = int(read_line(connection))
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code if code >= 0 else 128 - code)


def python(server: str, folder: Path) -> dict[str, str]:
    """Write a `python -m` into a folder whose programs are forks of a server, and give the variables by which torchrun takes it."""
    file = folder / "python"
    code = f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport stand_ins\n"
    file.write_text(f"#!{sys.executable} -S\n{code}stand_ins.stand_for({server!r}, sys.argv[sys.argv.index('-m') :])\n")
    file.chmod(0o755)
    return {"PYTHON_EXEC": str(file)}
