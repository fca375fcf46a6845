"""Plug-ins of strangers out of strings, installed by a folder on the path: no wheel, no pip, in this process or in a fork."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{more}"


def install(
    folder: Path,
    distribution: str,
    files: Mapping[str, str],
    *,
    commands: Mapping[str, str] | None = None,
    metadata: str = "",
) -> None:
    """Write a distribution into a folder; the first file's module is its entry point, called like the module.

    Args:
        commands: entry points of the group `n2kit.commands`: name → `module:app`.
        metadata: further lines of it, such as `Author-email: …`.
    """
    for name, source in files.items():
        (folder / name).write_text(textwrap.dedent(source), "utf8")
    module = next(iter(files)).removesuffix(".py")
    info = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA.format(name=distribution, more=metadata), "utf8")
    points = [f"[n2kit]\n{module} = {module}\n"]
    points += ["[n2kit.commands]\n", *(f"{name} = {target}\n" for name, target in (commands or {}).items())]
    (info / "entry_points.txt").write_text("".join(points), "utf8")


@contextlib.contextmanager
def on_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process see the plug-ins of a folder, without a trial of their import in processes of their own."""
    from n2kit.plugins import manager as managing
    from n2kit.plugins.catalogue import default_catalogue
    from n2kit.testing.under_test import component_under_test

    caches = (managing.manager, default_catalogue, component_under_test)
    before = set(sys.modules)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(managing, "probe_imports", lambda _: {})
        patch.setattr(sys, "dont_write_bytecode", True)
        for cached in caches:
            cached.cache_clear()
        try:
            yield
        finally:
            own = {path.stem for path in folder.glob("*.py")}
            for name in (set(sys.modules) - before) & own:
                del sys.modules[name]
    for cached in caches:
        cached.cache_clear()
