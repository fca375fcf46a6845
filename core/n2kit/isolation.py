"""A first look at a plug-in in an interpreter of its own, so that one that aborts or is heavy harms no command.

What was found is kept in the cache folder until the plug-in's files change (a crash is not: it may be the environment's);
n2kit's own plug-ins need no look.
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
from typing import Any, NamedTuple

from n2kit.weights import cache_folder

SECONDS = 60
KEPT = 1000  # looks in the cache
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
    running = {value: _start(value) for value, key in keys.items() if key not in known}
    end = time.monotonic() + SECONDS
    found = {value: _outcome(process, end) for value, process in running.items()}
    lasting = {keys[value]: look.problem for value, look in found.items() if look.lasting}
    if lasting:
        _write_cache(known | lasting)
    problems = {value: found[value].problem if value in found else known[key] for value, key in keys.items()}
    return {value: problem for value, problem in problems.items() if problem}


class Look(NamedTuple):
    """What keeps a plug-in out, if anything does, and whether that will be so as long as its files are the same."""

    problem: str | None
    lasting: bool = False


def _start(value: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    module = value.partition(":")[0].strip()
    return subprocess.Popen(
        [sys.executable, "-c", _LOOK, module, ",".join(HEAVY)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def _outcome(process: subprocess.Popen[str], end: float) -> Look:
    try:
        out, err = process.communicate(timeout=max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return Look(f"took more than {SECONDS} s to import")
    verdict = next((line for line in reversed(out.splitlines()) if line.startswith("n2kit:")), None)
    if verdict is None:
        last = (err.strip().splitlines() or [""])[-1]
        return Look(f"{ending(process.returncode)} while it was imported" + (f": {last}" if last else ""))
    problem, heavy = json.loads(verdict.removeprefix("n2kit:"))
    if problem:
        return Look(str(problem))
    if heavy:
        return Look(f"imports {', '.join(heavy)} at the top: import it in the module that `target` names", lasting=True)
    return Look(None, lasting=True)


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


def _read_cache() -> dict[str, str | None]:
    try:
        kept = json.loads(_file().read_text("utf8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write_cache(looks: dict[str, str | None]) -> None:
    file = _file()
    aside = file.with_name(f".plugins-{os.getpid()}.json")
    with contextlib.suppress(OSError):  # without a cache it is looked at again
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(dict(list(looks.items())[-KEPT:])))
        aside.replace(file)
