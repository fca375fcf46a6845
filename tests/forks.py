"""Programs as forks of a process that has imported torch, transformers and n2kit already: a cold start costs seconds, a fork none.

    done = forks.run(["-m", "n2kit_cli.main", "ls"])  # as subprocess.run([sys.executable, …], capture_output=True, text=True)
    with forks.Popen(["-c", code], stderr=subprocess.PIPE) as running: ...

Each is a process of its own: with its own session, folder, environment, path and streams, and what kills it kills it alone.
The server of forks that multiprocessing starts, which is a cold start as well, is such a fork in these programs and in the tests.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from stand_ins import fork, quick_fork_servers, read_line

# What a command that trains, embeds or compares imports in the end; that it is here decides nothing but how long that takes.
MODULES = (
    "transformers.models.auto.modeling_auto", "transformers.models.qwen3.modeling_qwen3", "transformers.models.llama.modeling_llama",
    "transformers.models.siglip.modeling_siglip", "transformers.models.clip.modeling_clip", "torch.distributed.fsdp", "peft", "timm",
    "open_clip", "faiss", "n2kit.builder", "n2kit.bench.runner.vision_features", "n2kit.bench.runner.scheduler", "n2kit.bench.runner.cells", "n2kit.train.engine",
    "n2kit.train.shards", "n2kit_cli.main",
)  # fmt: skip
Argument = str | Path


class Server:
    """A process that waits to be forked; it ends with the one that started it."""

    def __init__(self, python: Argument = sys.executable, env: Mapping[str, str] | None = None) -> None:
        self._alive, theirs = socket.socketpair()
        self.name = f"\0n2kit-forks-{os.getpid()}-{id(self)}"  # abstract: no file, and gone with the server
        environment = {**(os.environ if env is None else env), "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONSAFEPATH", None)  # this file is one of a folder of modules
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.name)
            listener.listen()
            passed = theirs.fileno(), listener.fileno()
            self._process = subprocess.Popen(
                [python, __file__, *map(str, passed)], pass_fds=passed, env=environment, start_new_session=True
            )
        self.pid = self._process.pid

    def fork(self, program: dict[str, Any], files: Sequence[int]) -> tuple[int, socket.socket]:
        """Start a program; give its number, and where its exit code will come."""
        return fork(self.name, program, files)

    def end(self) -> None:
        """Let it end."""
        self._alive.close()
        self._process.wait()


@functools.cache
def server() -> Server:
    """Start the server of this interpreter, once."""
    return Server()


def end() -> None:
    """Let the server of this interpreter end, if there is one."""
    if server.cache_info().currsize:
        server().end()
        server.cache_clear()


class Popen:
    """A fork with the interface of `subprocess.Popen([sys.executable, *arguments], start_new_session=True)`."""

    def __init__(
        self, arguments: Sequence[Argument], *, cwd: Argument | None = None, env: Mapping[str, str] | None = None,
        stdout: Any = None, stderr: Any = None, text: bool = False, of: Server | None = None,
    ) -> None:  # fmt: skip
        self.args, self.returncode = [str(a) for a in arguments], None
        program = {
            "arguments": self.args,
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
            "numbers": [0, 1, 2],
        }
        with contextlib.ExitStack() as theirs:
            nothing = theirs.enter_context(open(os.devnull))  # noqa: PTH123
            self.stdout, out = _stream(stdout, 1, text, theirs)
            self.stderr, err = _stream(stderr, 2, text, theirs)
            self.pid, self._end = (of or server()).fork(program, [nothing.fileno(), out, err])

    def poll(self) -> int | None:
        """Give the exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code: that of a signal is negative."""
        if self.returncode is None:
            if not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(read_line(self._end))
            self._end.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Read what it writes to its one pipe, and wait for it."""
        assert None in (self.stdout, self.stderr)
        said = [pipe and pipe.read() for pipe in (self.stdout, self.stderr)]
        self.wait(timeout)
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Popen:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in filter(None, (self.stdout, self.stderr)):
            pipe.close()
        self.wait()


def run(arguments: Sequence[Argument], **how: Any) -> subprocess.CompletedProcess[str]:
    """Do what `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)` does."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = Popen(arguments, stdout=out, stderr=err, **how)
        code = process.wait()
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(process.args, code, out.read(), err.read())


def _stream(wanted: Any, number: int, text: bool, theirs: contextlib.ExitStack) -> tuple[IO[Any] | None, int]:
    """Give our end of a pipe, if one is wanted, and what the program gets."""
    if wanted is None or wanted == subprocess.DEVNULL:
        return None, number if wanted is None else theirs.enter_context(open(os.devnull, "w")).fileno()  # noqa: PTH123
    if wanted != subprocess.PIPE:
        return None, wanted if isinstance(wanted, int) else wanted.fileno()
    ours, its = os.pipe()
    theirs.callback(os.close, its)
    return open(ours, "r" if text else "rb"), its  # noqa: PTH123


# --- the server -------------------------------------------------------------------------------------------------------


def serve(alive: socket.socket, listener: socket.socket) -> dict[str, Any]:
    """Fork for each request; comes back in the forks alone, with what each is to run."""
    while True:
        if alive in select.select([alive, listener], [], [])[0]:
            os._exit(0)  # whoever started this has ended
        connection, _ = listener.accept()
        _, found, _, _ = socket.recv_fds(connection, 1, 16)
        if os.fork() == 0:
            alive.close()
            listener.close()
            return watched(connection, found)
        connection.close()
        for number in found:
            os.close(number)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # those that watch, and have ended
                pass


def watched(connection: socket.socket, files: list[int]) -> dict[str, Any]:
    """Fork once more, and come back in that one; this one says how it ended, or ends it when nobody is there to hear it."""
    program: dict[str, Any] = json.loads(read_line(connection))
    numbers = program.pop("numbers")
    pid = os.fork()
    if pid == 0:
        os.setsid()
        connection.close()
        high = [
            fcntl.fcntl(file, fcntl.F_DUPFD, 1 + max(numbers)) for file in files
        ]  # so that none is in another's place
        for number, file in zip(numbers, high, strict=True):
            os.dup2(file, number)
        files = [file for file in (*files, *high) if file not in numbers]
    for file in files:
        os.close(file)
    if pid == 0:
        return program
    connection.sendall(b"%d\n" % pid)
    ended = os.pidfd_open(pid)
    if ended not in select.select([connection, ended], [], [])[0]:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(b"%d\n" % code)
    os._exit(0)


def become(arguments: list[str], cwd: str, env: dict[str, str], path: list[str]) -> None:
    """Be what `python *arguments` is in this folder and environment."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    what, *rest = arguments
    first = [] if env.get("PYTHONSAFEPATH") else [{"-c": "", "-m": cwd}.get(what, str(Path(what).parent))]
    sys.path[:] = [*first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *path]
    importlib.invalidate_caches()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if what == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    elif what == "-m":
        sys.argv = rest
        sys.modules.pop(rest[0], None)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(what, run_name="__main__")


def _main(alive: int, listener: int) -> None:
    given = [sys.path[0], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    for module in MODULES:
        importlib.import_module(module)
    from n2kit.plugins.manager import manager

    assert not manager.cache_info().currsize, "plug-ins are to be looked for where a program runs"
    path = [p for p in sys.path if p not in given]
    requests = socket.socket(fileno=listener)
    name = requests.getsockname().decode()
    quick_fork_servers(lambda: name)
    gc.collect()
    gc.freeze()
    program = serve(socket.socket(fileno=alive), requests)
    try:
        become(**program, path=path)
    except SystemExit as stop:
        if isinstance(stop.code, int | None):
            leave(stop.code or 0)
        raise
    leave(0)


def leave(code: int) -> None:
    """End as an interpreter does, but for taking all modules apart, which costs half a second."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code & 255)


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
