"""The laws of one plug-in, tried in a process of its own: `n2kit plugins check`.

Its declarations are tried in a new interpreter, where torch is not; its laws in a fork of one that has imported torch, which takes seconds.
Either process prints a line of JSON for each result, so that an abort loses only the law that it was trying.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

from n2kit.contract.cards import ComponentSpec
from n2kit.contract.kinds import KIND_SPECS
from n2kit.errors import Unavailable, suggest
from n2kit.plugins.isolation import HEAVY, describe_exit
from n2kit.plugins.manager import OWN, SELECT, Plugin, load_target, manager
from n2kit.plugins.registries import REGISTRIES, registered
from n2kit.testing.law_result import LawResult
from n2kit.testing.references import references_of
from n2kit.utils.fork_server import forks_of

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

SECONDS = 900
TOGETHER = 4  # plug-ins at a time
PRELOAD = (
    "n2kit.testing.check",
    "n2kit.builder",
    "transformers.models.auto.modeling_auto",
)  # what laws import in the end
END = '{"end": true}'  # the child's last line
# Of one thread at a time: a start asks every other process for its exit code, too, and that can be read only once.
_multiprocessing = threading.Lock()


@dataclass
class PluginCheckResult:
    """The results of a plug-in: `problems` fail it, `hints` and `waived` laws do not; `laws` is the number of laws that were kept."""

    plugin: str
    distribution: str
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    laws: int = 0
    waived: list[str] = field(default_factory=list)


def probe(plugin: Plugin) -> PluginCheckResult:
    """Check a plug-in in a process of its own, so that not even an abort harms this one."""
    result = PluginCheckResult(plugin.name, plugin.distribution)
    if plugin.disabled:
        result.hints.append("it is disabled")
        return result
    if plugin.problem:
        result.problems.append(plugin.problem)
        return result
    result.problems.extend(plugin.warnings)
    alone = {**os.environ, SELECT: f"{OWN},{plugin.qualified}"}  # beside n2kit's own, whose parts it is joined with
    for run in (_declare, _hold):
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            code = run(plugin, alone, out, err)
            said = out.read_text("utf8", "replace")
            at = _read(said, result)
            if code is None:
                result.problems.append(f"took more than {SECONDS} s")
            elif not code and END not in said.splitlines():
                result.problems.append(f"{at}: it ended the process")
            elif code:
                reason = (err.read_text("utf8", "replace").strip().splitlines() or ["no output"])[-1]
                result.problems.append(f"{at}: {describe_exit(code)}: {reason}")
            else:
                continue
        break
    return result


def _declare(plugin: Plugin, environment: Mapping[str, str], out: Path, err: Path) -> int | None:
    """Try the declarations of a plug-in in a new interpreter, and return its exit code; None: it takes too long."""
    command = [sys.executable, "-P", "-m", "n2kit.testing.probe", plugin.distribution, plugin.name]
    with out.open("wb") as stdout, err.open("wb") as stderr:
        try:
            return subprocess.run(
                command, stdout=stdout, stderr=stderr, timeout=SECONDS, check=False, env=environment
            ).returncode
        except subprocess.TimeoutExpired:
            return None


def _hold(plugin: Plugin, environment: Mapping[str, str], out: Path, err: Path) -> int | None:
    """Try the laws of a plug-in in a fork, likewise."""
    out.touch()
    arguments = (plugin.distribution, plugin.name, dict(environment), out, err)
    process = _context().Process(target=_in_fork, args=arguments)  # type: ignore[attr-defined]
    with _multiprocessing:
        process.start()
    ended = wait([process.sentinel], SECONDS)
    with _multiprocessing:
        if not ended:
            process.kill()
        process.join()
        return int(process.exitcode) if ended else None


@functools.cache
def _context() -> BaseContext:
    return forks_of(PRELOAD)


def _in_fork(distribution: str, name: str, environment: dict[str, str], out: Path, err: Path) -> None:
    """Be a new process of this environment that writes to these files, and try the laws."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in ((1, out), (2, err)):
        with file.open("wb") as stream:
            os.dup2(stream.fileno(), number)
    import torch

    torch.set_num_threads(1)  # tiny models: threads cost more than they give
    _print(law_results(_plugin(distribution, name)))


def probe_all(plugins: Sequence[Plugin], progress: Callable[[int, int, str], None]) -> list[PluginCheckResult]:
    """Check plug-ins, some at a time.

    Args:
        progress: called with (checked, their total, the name of the last one).
    """
    _context()  # here, and not in a thread
    with ThreadPoolExecutor(min(TOGETHER, os.cpu_count() or 1)) as pool:
        running = {pool.submit(probe, plugin): plugin for plugin in plugins}
        try:
            for number, done in enumerate(as_completed(running), 1):
                progress(number, len(plugins), running[done].name)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [done.result() for done in running]


def _read(lines: str, result: PluginCheckResult) -> str:
    """Sort a child's lines into `result`, and return the last law before it ended."""
    at = "before any law"
    for line in lines.splitlines():
        if not line.startswith('{"component"'):
            continue  # something that the plug-in itself printed
        found = json.loads(line)
        at = f"after {found['component']}, {found['law']}"
        text = f"{found['component']}: {found['law']}: {found['reason']}"
        if found["state"] == "failed":
            result.problems.append(text)
        elif found["state"] == "hint":
            result.hints.append(f"{found['component']}: {found['reason']}")
        elif found["state"] == "waived":
            result.waived.append(text)
        result.laws += found["state"] in ("passed", "hint")
    return at


def declaration_results(plugin: Plugin) -> Iterator[LawResult]:
    """Yield what is wrong with a plug-in's declarations; for a process that has imported nothing heavy."""
    for spec in plugin.specs:
        problems = declarations(spec, plugin.distribution)
        yield from (LawResult(f"{spec.kind}/{spec.name}", "declares what there is", "failed", p) for p in problems)
    if heavy := [m for m in HEAVY if m in sys.modules]:
        reason = f"`config` or `card` of its components imports {', '.join(heavy)}; a plan must do without"
        yield LawResult(f"plug-in/{plugin.name}", "plans without torch", "failed", reason)


def law_results(plugin: Plugin) -> Iterator[LawResult]:
    """Yield the results of the laws of a plug-in's components whose declarations are sound, computed in this process."""
    from n2kit.testing.check import check_component
    from n2kit.testing.laws import laws_of

    yield from registered_targets(plugin)
    for spec in plugin.specs:
        if declarations(spec, plugin.distribution):
            continue
        laws = {law.name for law in laws_of(spec.kind)}
        for unknown in sorted({*spec.waived} - laws):
            reason = suggest(unknown, laws) or "its suite has a test for each law"
            yield LawResult(
                f"{spec.kind}/{spec.name}", f"waives {unknown}", "failed", f"there is no such law; {reason}"
            )
        for reference in references_of(spec, plugin.distribution):
            yield from check_component(spec.kind, reference)


def declarations(spec: ComponentSpec, distribution: str) -> list[str]:
    """List the targets that a spec names and that cannot be imported, except `target`, which the laws import."""
    found = []
    if KIND_SPECS[spec.kind].card is not None and spec.card is None:
        found.append("declares no card")
    for what in filter(None, (spec.config, spec.card, spec.wildcard)):
        try:
            load_target(what, owner=distribution)
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return found


def registered_targets(plugin: Plugin) -> Iterator[LawResult]:
    """Yield a failure for each logger, reader, baseline, metric, template or section of a plug-in that cannot be imported."""
    for what in REGISTRIES:
        for name, entries in registered(what).items():
            for entry in entries:
                if entry.plugin == plugin.qualified:
                    try:
                        entry.load()
                    except Unavailable as problem:
                        yield LawResult(f"{what}/{name}", "can be imported", "failed", problem.message)


def _plugin(distribution: str, name: str) -> Plugin:
    return next(p for p in manager().plugins if (p.distribution, p.name) == (distribution, name))


def _print(results: Iterator[LawResult]) -> None:
    for found in results:
        print(json.dumps(asdict(found), ensure_ascii=False), flush=True)
    print(END, flush=True)


if __name__ == "__main__":
    _print(declaration_results(_plugin(*sys.argv[1:])))
