"""Checks of this environment: versions, devices, the hub, disk, plug-ins."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from n2kit.errors import N2kitError
from n2kit.plugins.authors import advice
from n2kit.plugins.hub import hub_problem
from n2kit.plugins.manager import manager
from n2kit.utils.cache import cache_folder

SMALL_DISK_GB = 5.0


@dataclass(frozen=True)
class Finding:
    """A line of `n2kit doctor`: `ok`, `note` (it works, with a limit) or `problem` (it must be repaired), and the fix."""

    check: str
    state: Literal["ok", "note", "problem"]
    found: str
    fix: str | None = None


def examine() -> list[Finding]:
    """Run all checks, and return their findings; a check that fails is a finding, too."""
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _torch, _devices, _libraries, _weights, _disk, _plugins]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings.extend(check())
        except Exception as error:  # a broken library may raise anything
            what = f"{type(error).__name__}: {error}".splitlines()[0]
            findings.append(
                Finding(check.__name__.strip("_"), "problem", what, "reinstall n2kit in a fresh environment")
            )
    return findings


def _python() -> Iterator[Finding]:
    yield Finding(
        "python",
        "ok",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    )


def _torch() -> Iterator[Finding]:
    import torch

    yield Finding("torch", "ok", torch.__version__)
    try:
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
        yield Finding("torchvision", "ok", version("torchvision"))
    except (ImportError, RuntimeError) as error:
        # A CPU build of torch next to the registry's torchvision fails so, and then neither timm nor transformers import.
        fix = "install torch and torchvision together, from one index: pip install --force-reinstall torch torchvision"
        yield Finding("torchvision", "problem", str(error).splitlines()[0], fix)


def _devices() -> Iterator[Finding]:
    import torch

    from n2kit.utils.device import pick_device, pick_precision

    device = pick_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    _, why = pick_precision("auto", device)
    yield Finding("device", "ok", f"{name}; {why}")


def _libraries() -> Iterator[Finding]:
    for package in ("transformers", "timm", "accelerate", "faiss-cpu", "pyarrow", "huggingface_hub"):
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            yield Finding(package, "problem", "not installed", f"pip install {package}")
    gguf = importlib.util.find_spec("gguf") is not None
    yield Finding(
        "gguf",
        "ok" if gguf else "note",
        version("gguf") if gguf else "not installed: GGUF files cannot be read",
        None if gguf else 'pip install "n2kit[gguf]"',
    )


def _weights() -> Iterator[Finding]:
    reason = hub_problem()
    if reason:
        yield Finding(
            "hub", "note", f"out of reach: {reason}", "weights by file: or pkg:, or :tiny; see n2kit ls --json"
        )
    else:
        yield Finding("hub", "ok", "reachable")


def _disk() -> Iterator[Finding]:
    folder = cache_folder()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    writable = os.access(existing, os.W_OK)
    state: Literal["ok", "note", "problem"] = "problem" if not writable else "note" if free < SMALL_DISK_GB else "ok"
    fix = None if state == "ok" else "set N2KIT_CACHE to a folder on a larger, writable disk"
    yield Finding("cache", state, f"{folder}, {free:.0f} GB free" + ("" if writable else ", not writable"), fix)


def _plugins() -> Iterator[Finding]:
    plugins = manager()
    for broken in plugins.broken():
        yield Finding(
            f"plug-in {broken.name}",
            "problem",
            f"{broken.distribution}: {broken.problem}",
            f"pip uninstall {broken.distribution}, or {advice(broken.distribution)}",
        )
    yield Finding("plug-ins", "ok", f"{len(plugins.plugins) - len(plugins.broken())} loaded")
    results, failures = plugins.hooks.call("n2kit_doctor_checks")
    for result in results:
        for line in result:
            what, found = line if isinstance(line, tuple) and len(line) == 2 else ("a plug-in's check", line)
            yield Finding(str(what), "ok", str(found))
    for name, error in failures:
        if isinstance(error, N2kitError):
            yield Finding(name, "problem", error.message, error.hint)
        else:
            reason = f"its own check failed: {type(error).__name__}: {error}".splitlines()[0]
            yield Finding(name, "problem", reason, advice(name.partition("/")[0]))
