"""Files are written whole or not at all, folders are where they are said to be, and YAML errors have lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from n2kit.errors import BadInput
from n2kit.utils import yaml_files
from n2kit.utils.cache import cache_folder, config_folder
from n2kit.utils.files import (
    ABANDONED,
    atomic_write,
    read_json,
    remove_temporaries,
    temporaries_of,
    write_json,
    write_once,
)
from n2kit.utils.locks import file_lock


def names(folder: Path) -> list[str]:
    return sorted(f.name for f in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "made" / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError), atomic_write(file) as temporary:
        temporary.write_text(7)  # type: ignore[arg-type]
    assert read_json(file) == {"a": 1}
    assert names(file.parent) == ["a.json"]


def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a") as temporary:
        assert str(os.getpid()) in temporary.name
        temporary.write_text("1")
    assert names(tmp_path) == ["a"]


def test_what_a_killed_process_left_of_a_file_is_removed_once_it_is_old(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    old, new, other = (tmp_path / name for name in (".a.json.1.tmp", ".a.json.2.tmp", ".b.json.1.tmp"))
    for left in (old, new, other):
        left.write_text("{")
    past = old.stat().st_mtime - 2 * ABANDONED
    os.utime(old, (past, past))
    os.utime(other, (past, past))
    assert temporaries_of(file) == [old, new]
    write_json(file, {}, durable=False)
    assert old.exists()
    write_json(file, {})
    assert names(tmp_path) == [new.name, other.name, "a.json"]


def test_of_a_folder_that_others_write_into_only_what_is_old_is_removed(tmp_path: Path) -> None:
    old, new = (tmp_path / name for name in (".a.png.1.tmp", ".b.png.2.tmp"))
    for left in (old, new):
        left.write_text("x")
    past = old.stat().st_mtime - 2 * ABANDONED
    os.utime(old, (past, past))
    remove_temporaries(tmp_path, older=ABANDONED)
    assert names(tmp_path) == [new.name]
    remove_temporaries(tmp_path)
    assert names(tmp_path) == []


def test_of_several_writers_the_first_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_once(tmp_path / "a", "1")
    write_once(tmp_path / "a", "2")

    def none(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", none)
    write_once(tmp_path / "b", "1")
    write_once(tmp_path / "b", "2")
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "1"
    assert names(tmp_path) == ["a", "b"]


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    script = (
        "import sys, time; from pathlib import Path; from n2kit.utils.locks import file_lock\n"
        "with file_lock(Path(sys.argv[1]), 'it'):\n    print('held', flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BadInput, match=r"it is in use by process \d+"), file_lock(lock, "it"):
            pass
    finally:
        process.kill()
        process.wait()
    with file_lock(lock, "it"):
        pass


def test_the_folders_obey_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("N2KIT_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        assert (cache_folder(), config_folder()) == (tmp_path / ".cache/n2kit", tmp_path / ".config/n2kit")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "d"))
    assert (cache_folder(), config_folder()) == (tmp_path / "c/n2kit", tmp_path / "d/n2kit")
    monkeypatch.setenv("N2KIT_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1,\n "b": 2,\n "a": 3}', "a.json:3: the key 'a' is there twice"),
        (b'{"a":\n {"b": 1, "b": 2}}', "a.json:2: the key 'b' is there twice"),
        (b"[" * 200_000, "a.json:1: nested too deep"),
        (b'{"a": ' * 200_000, "a.json:1: nested too deep"),
        (b'{"a": 1,\n b}', "a.json:2: not valid JSON"),
        (b'{"a": "\xff"}', "a.json:1: not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a.json:1: not valid JSON"),
        (b"[]", "a.json: not a JSON object"),
        (b"", "a.json:1: not valid JSON"),
    ],
)
def test_json_that_cannot_be_read_is_named_with_its_line(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadInput, match=said):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("loader", [yaml_files.LOADER, yaml.SafeLoader])
def test_yaml_is_read_alike_by_both_loaders(loader: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "LOADER", loader)
    file = tmp_path / "a.yaml"
    file.write_text("a: 1e-4\nb: ['x', y]\nc: {d: '1', 3: ~}\n")
    root, values = yaml_files.read_with_lines(file)
    assert root is not None
    assert yaml_files.construct(root) == yaml_files.read_yaml(file) == {
        "a": "1e-4", "b": ["x", "y"], "c": {"d": "1", 3: None},
    }  # fmt: skip
    assert {v.place: v.line for v in values} == {
        ("a",): 1, ("b",): 2, ("b", 0): 2, ("b", 1): 2, ("c",): 3, ("c", "d"): 3, ("c", "3"): 3,
    }  # fmt: skip
    assert [bool(v.node.style) for v in values if isinstance(v.node, yaml.ScalarNode)] == [
        False, True, False, True, False,
    ]  # fmt: skip
    for text, message in (
        ("a: 1\nb: [\nc: 2\n", "a.yaml:[34]: not valid YAML: "),
        ("a: 1\nb:\n " + "[" * 100_000, "a.yaml:3: not valid YAML: (nested deeper|exceeded maximum nesting)"),
        ("".join(f"{' ' * n}a:\n" for n in range(500)), "a.yaml:51: not valid YAML: nested deeper"),
        ("a: &x [*x]", r"a.yaml:1: not valid YAML: the alias \*x"),
        ("a: 1\nb: !x {c: 2}", "a.yaml:2: not valid YAML: the tag !x"),
        ("a: !!binary aGk=", "a.yaml:1: not valid YAML: the tag !!binary"),
        ("a: !!python/object:os.system []", "the tag !!python/object:os.system"),
        ("a: 1\n---\nb: 1", "a.yaml:2: not valid YAML: "),
        ("x" * 20_000_000, "longer than 4,000,000 characters"),
        ("a: 1\n\na: 2", "a.yaml:3: a is set twice, first at .*a.yaml:1"),
        ("a.b: 1\na:\n  b: 2", "a.yaml:3: a.b is set twice, first at .*a.yaml:1"),
        ("l:\n- x: 1\n  x: 2", "a.yaml:3: l.0.x is set twice"),
        ("? [1]\n: 2", "a.yaml:1: a key that is no text"),
        ("a: &a [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '*a'] * 9)}]\n" for n in range(9)), "alias"),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(BadInput, match=message):
            yaml_files.read_with_lines(file)
        if message != "a.yaml:3: a.b is set twice, first at .*a.yaml:1" and not text.startswith("?"):
            with pytest.raises(BadInput, match="a.yaml.*: not valid YAML: "):
                yaml_files.read_yaml(file)
    file.write_text("a: 1\n3: 2")
    with pytest.raises(BadInput, match="a.yaml:2: a key that is no text"):
        yaml_files.read_with_lines(file, text_keys=True)
