"""Load one plug-in and all that its specs name, in an interpreter of its own: `n2kit plugins check`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field

from n2kit.manager import Manager, Plugin, load_target

SECONDS = 300
BACKBONES = ("llm", "vision")
WITH_CARD = ("llm", "vision", "connector", "fusion")


@dataclass
class Probed:
    """What was wrong with a plug-in; nothing if `problems` is empty."""

    plugin: str
    distribution: str
    problems: list[str] = field(default_factory=list)


def probe(plugin: Plugin) -> Probed:
    """Probe a plug-in so that not even an abort of its process harms this one."""
    result = Probed(plugin.name, plugin.distribution)
    command = [sys.executable, "-m", "n2kit.testing.probe", plugin.distribution, plugin.name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        result.problems.append(f"took more than {SECONDS} s")
        return result
    last = done.stdout.strip().splitlines()[-1:]
    try:
        result.problems = list(json.loads(last[0]))
    except (IndexError, json.JSONDecodeError, TypeError):
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        result.problems.append(f"its process ended with code {done.returncode}: {reason}")
    return result


def problems_of(plugin: Plugin) -> list[str]:
    """Everything that is wrong with a plug-in's declarations, found in this process."""
    if plugin.problem:
        return [plugin.problem]
    found = []
    for spec in plugin.specs:
        where = f"{spec.kind} {spec.name}"
        for what in filter(None, (spec.config, spec.card, spec.wildcard, spec.target)):
            try:
                load_target(what, owner=plugin.distribution)
            except Exception as error:
                found.append(f"{where}: {type(error).__name__}: {error}".splitlines()[0])
        if spec.kind in WITH_CARD and spec.card is None:
            found.append(f"{where}: declares no card")
        if spec.kind in BACKBONES and "tiny" not in spec.variants:
            found.append(f"{where}: has no tiny variant")
    return found


if __name__ == "__main__":
    plugin = next(p for p in Manager().plugins if [p.distribution, p.name] == sys.argv[1:])
    print(json.dumps(problems_of(plugin)))
