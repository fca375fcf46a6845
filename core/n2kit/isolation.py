"""A first look at a plug-in in an interpreter of its own, so that one that aborts or is heavy harms no command.

A good result is kept in the cache folder until the plug-in's files change; n2kit's own plug-ins need none.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from n2kit.weights import cache_folder

SECONDS = 60
# What a plug-in's module may not import: `n2kit --help` and every other command would wait for it.
HEAVY = ("torch", "transformers", "timm", "open_clip", "numpy", "faiss")
_LOOK = """
import importlib, json, sys
problem = None
try:
    importlib.import_module(sys.argv[1])
except BaseException as error:
    problem = f"{type(error).__name__}: {error}".splitlines()[0]
print("\\nn2kit:" + json.dumps([problem, [m for m in sys.argv[2].split(",") if m in sys.modules]]))
"""


def first_look(points: Iterable[EntryPoint]) -> dict[str, str]:
    """What keeps plug-ins from being loaded: entry point's value → reason; nothing for those that are sound."""
    known = _read_cache()
    keys = {point.value: _key(point.value) for point in points}
    unknown = {value: key for value, key in keys.items() if key not in known}
    running = {value: _start(value) for value in unknown}
    end = time.monotonic() + SECONDS
    problems = {value: problem for value, process in running.items() if (problem := _outcome(process, end))}
    fresh = [key for value, key in unknown.items() if value not in problems]
    if fresh:
        _write_cache([*known, *fresh])
    return problems


def _start(value: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    module = value.partition(":")[0].strip()
    return subprocess.Popen(
        [sys.executable, "-c", _LOOK, module, ",".join(HEAVY)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def _outcome(process: subprocess.Popen[str], end: float) -> str | None:
    try:
        out, err = process.communicate(timeout=max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"took more than {SECONDS} s to import"
    verdict = next((line for line in reversed(out.splitlines()) if line.startswith("n2kit:")), None)
    if verdict is None:
        last = (err.strip().splitlines() or [""])[-1]
        return f"{ending(process.returncode)} while it was imported" + (f": {last}" if last else "")
    problem, heavy = json.loads(verdict.removeprefix("n2kit:"))
    if problem:
        return str(problem)
    if heavy:
        return f"imports {', '.join(heavy)} at the top: import it in the module that `target` names"
    return None


def ending(code: int) -> str:
    """What an exit code says: `ended the process with code 3`, `killed the process by SIGABRT`."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"killed the process by {signal.Signals(-code).name}"
    return f"ended the process with code {code}"


def _key(value: str) -> str:
    """Differs whenever the files of the plug-in's top-level module do; finding them imports nothing."""
    facts: list[Any] = [sys.version, value]
    with contextlib.suppress(ImportError, ValueError, OSError):
        spec = importlib.util.find_spec(value.partition(":")[0].strip().partition(".")[0])
        folders = list(spec.submodule_search_locations or []) if spec else []
        files = [f for folder in folders for f in Path(folder).rglob("*.py")]
        files += [Path(spec.origin)] if spec and spec.origin and not folders else []
        facts += [(str(f), f.stat().st_mtime_ns) for f in sorted(files)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _file() -> Path:
    return cache_folder() / "plugins.json"


def _read_cache() -> list[str]:
    try:
        kept = json.loads(_file().read_text("utf8"))
    except (OSError, ValueError):
        return []
    return [key for key in kept if isinstance(key, str)] if isinstance(kept, list) else []


def _write_cache(keys: list[str]) -> None:
    file = _file()
    aside = file.with_name(f".plugins-{os.getpid()}.json")
    with contextlib.suppress(OSError):  # without a cache it is looked at again
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(keys[-1000:]))
        aside.replace(file)
