"""The import of each plug-in, tried first in an interpreter of its own: one that aborts or is heavy harms no command.

The result is kept in the cache folder until the plug-in's files change (a crash and a long wait are not: they may be the environment's);
n2kit's own plug-ins are not tried.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import IO, Any, NamedTuple

from n2kit.errors import BadInput
from n2kit.utils.cache import cache_folder
from n2kit.utils.files import read_json, write_json

SECONDS = 30
KEPT = 1000  # results in the cache
# What a plug-in's module may not import: `n2kit --help` and every other command would wait for it.
HEAVY = ("torch", "transformers", "timm", "open_clip", "numpy", "faiss")
_PROBE = """
import importlib, json, sys
problem = None
try:
    importlib.import_module(sys.argv[1])
except BaseException as error:
    problem = f"{type(error).__name__}: {error}".splitlines()[0]
print("\\nn2kit:" + json.dumps([problem, [m for m in sys.argv[2].split(",") if m in sys.modules]]))
"""


def probe_imports(points: Iterable[EntryPoint]) -> dict[str, str]:
    """Import each plug-in in a child process and return what keeps it from being loaded.

    The result maps an entry point's value to the reason; plug-ins that can be loaded are not in it.
    """
    known = _read_cache()
    keys = {point.value: _key(point.value) for point in points}
    running = {value: _start(value) for value, key in keys.items() if key not in known}
    end = time.monotonic() + SECONDS
    found = {value: _outcome(process, end) for value, process in running.items()}
    lasting = {keys[value]: result.problem for value, result in found.items() if result.lasting}
    if lasting:
        _write_cache(known | lasting)
    problems = {value: found[value].problem if value in found else known[key] for value, key in keys.items()}
    return {value: problem for value, problem in problems.items() if problem}


class ProbeResult(NamedTuple):
    """The reason not to load a plug-in, if there is one; `lasting`: it holds as long as the plug-in's files do not change."""

    problem: str | None
    lasting: bool = False


@dataclass
class Running:
    """A child process that imports one plug-in. It writes to files: a pipe would wait for whatever the child leaves running."""

    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]


def _start(value: str) -> Running:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    module = value.partition(":")[0].strip()
    out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (closed when they are read)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _PROBE, module, ",".join(HEAVY)],  # -P: the current folder is data, not code
        stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True,
    )  # fmt: skip
    return Running(process, out, err)


def _outcome(running: Running, end: float) -> ProbeResult:
    process = running.process
    try:
        process.wait(timeout=max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        # Not lasting: the machine may have been busy, or the disk cold.
        again = "the next command tries it again, --disable-plugin leaves it out"
        return ProbeResult(f"took more than {SECONDS} s to import; {again}")
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # and whatever it has started
        process.wait()
    out, err = (_text(file) for file in (running.out, running.err))
    verdict = next((line for line in reversed(out) if line.startswith("n2kit:")), None)
    if verdict is None:
        return ProbeResult(
            f"{describe_exit(process.returncode)} while it was imported" + (f": {err[-1]}" if err else "")
        )
    try:
        problem, heavy = json.loads(verdict.removeprefix("n2kit:"))
    except ValueError:
        return ProbeResult(f"{describe_exit(process.returncode)} while it was imported")
    if problem:
        return ProbeResult(str(problem))
    if heavy:
        return ProbeResult(
            f"imports {', '.join(heavy)} at the top: import it in the module that `target` names", lasting=True
        )
    return ProbeResult(None, lasting=True)


def forget() -> None:
    """Forget what earlier imports have found, so that each plug-in is tried anew."""
    with contextlib.suppress(OSError):
        _file().unlink()


def _text(file: IO[bytes]) -> list[str]:
    """Return the last lines that a child wrote; it may have written anything."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - 65536))
    with file:
        return file.read().decode("utf8", "replace").strip().splitlines()


def describe_exit(code: int) -> str:
    """Describe an exit code: `ended the process with code 3`, `killed the process by SIGABRT`."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed the process by {signal.Signals(-code).name}"
    return f"ended the process with code {code}"


def _key(value: str) -> str:
    """Return a key that differs whenever the files of the plug-in's top-level module do; finding them imports nothing."""
    facts: list[Any] = [sys.version, value, _installed()]
    with contextlib.suppress(ImportError, ValueError, OSError):
        spec = importlib.util.find_spec(value.partition(":")[0].strip().partition(".")[0])
        folders = list(spec.submodule_search_locations or []) if spec else []
        files = [f for folder in folders for f in Path(folder).rglob("*.py")]
        files += [Path(spec.origin)] if spec and spec.origin and not folders else []
        facts += [(str(f), f.stat().st_mtime_ns) for f in sorted(files)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


@functools.cache
def _installed() -> str:
    """Return a text that differs whenever a distribution comes, goes or changes: an import may then give another module."""
    folders = [Path(p) for p in sys.path if p and Path(p).is_dir()]
    return repr([(str(f), f.stat().st_mtime_ns) for f in folders if f != Path.cwd()])


def _file() -> Path:
    return cache_folder() / "plugins.json"


def _read_cache() -> dict[str, str | None]:
    try:
        return read_json(_file())
    except (OSError, BadInput):
        return {}


def _write_cache(results: dict[str, str | None]) -> None:
    file = _file()
    with contextlib.suppress(OSError):  # without a cache it is tried again
        write_json(file, dict(list(results.items())[-KEPT:]), durable=False)
