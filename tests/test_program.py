"""The program around its commands: pipes that close, plug-in commands, settings that contradict each other, leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import forks
from n2kit.errors import BadInput
from n2kit_cli import main


@pytest.mark.parametrize("command", [["ls", "--json"], ["config", "schema"], ["ls"], ["--help"]])
def test_a_reader_that_goes_is_no_fault(command: list[str]) -> None:
    """More than a pipe holds, and less: in the middle of printing, and at its end."""
    program = [sys.executable, "-m", "n2kit_cli.main", *command]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (0, b"")


def test_a_reader_that_goes_excuses_no_fault(tmp_path: Path) -> None:
    """A plug-in's command that prints and fails, to a pipe that nobody reads."""
    (tmp_path / "n2kit_loud-1.dist-info").mkdir()
    (tmp_path / "n2kit_loud-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: n2kit-loud\nVersion: 1\n"
    )
    (tmp_path / "n2kit_loud-1.dist-info" / "entry_points.txt").write_text("[n2kit.commands]\nloud = loud:app\n")
    (tmp_path / "loud.py").write_text(
        "import typer\nfrom n2kit.errors import BadInput\napp = typer.Typer()\n\n\n"
        "@app.command()\ndef refuse() -> None:\n    print('said')\n    raise BadInput('no', 'never')\n\n\n"
        "@app.command()\ndef fail() -> None:\n    print('said')\n    raise typer.Exit(1)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": ""}
    for how, code, complaint in (("refuse", 2, "error: no\nhint: never\n"), ("fail", 1, "")):
        program = [sys.executable, "-m", "n2kit_cli.main", "loud", how]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        said = process.stderr.read().decode()
        process.stderr.close()
        assert (process.wait(), said) == (code, complaint)


@pytest.mark.parametrize(("closed", "arguments", "code"), [(">&-", ["ls"], 0), ("2>&-", ["ls", "nothing-of-this"], 2)])
def test_what_is_said_to_a_closed_stream_is_said_nowhere(closed: str, arguments: list[str], code: int) -> None:
    program = [sys.executable, "-m", "n2kit_cli.main", *arguments]
    done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *program], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_behind_stdout_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        program = [sys.executable, "-m", "n2kit_cli.main", "ls"]
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "No space left" in done.stderr


@pytest.mark.slow
def test_a_reader_that_goes_stops_no_training(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    files = ["--items", "items.jsonl", "--pairs", "train.csv", "--images", "images"]
    steps = ["--max-steps", "3", "--batch-size", "4", "--set", "train.log_steps=1"]
    command = ["train", tiny_bundle, *files, *steps, "-o", tmp_path / "run", "--json"]
    program = [sys.executable, "-m", "n2kit_cli.main", *command]  # a cold start, as users have it
    process = subprocess.Popen(program, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0, said
    assert "Traceback" not in said
    assert (tmp_path / "run" / "bundle" / "manifest.json").is_file()


def test_ctrl_c_when_all_is_done_prints_no_traceback_of_a_library() -> None:
    code = (
        "import atexit, os, signal, sys; atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "from n2kit_cli.main import main; main(['--version'])"
    )
    done = forks.run(["-c", code])
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_nor_while_threads_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    before, then = signal.getsignal(signal.SIGINT), []
    monkeypatch.setattr(main, "leave_all_at_exit", lambda: None)
    monkeypatch.setattr(main, "name_waiting_threads", lambda: then.append(signal.getsignal(signal.SIGINT)))
    try:
        with pytest.raises(SystemExit):
            main.main(["--version"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert then == [signal.SIG_DFL]


def test_nor_in_the_middle_of_a_table(monkeypatch: pytest.MonkeyPatch, cli: Any) -> None:
    def gone(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("n2kit_cli.ls.table", gone)
    monkeypatch.setattr(main, "_reader_gone", lambda: 0)
    result = cli("ls")
    assert (result.code, result.err) == (0, "")


@pytest.fixture
def plugin_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plug-ins' commands: `greet`, and `broken`, whose module cannot be imported."""
    (tmp_path / "greeting.py").write_text(
        "import typer\napp = typer.Typer()\n\n\n@app.command()\ndef hello() -> None:\n    print('hello')\n"
    )
    (tmp_path / "breaking.py").write_text("raise SystemExit('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for name, value in (("greet", "greeting:app"), ("broken", "breaking:app")):
        point = EntryPoint(name, value, "n2kit.commands")
        vars(point)["dist"] = SimpleNamespace(name="n2kit-greetings")
        found.append(point)
    monkeypatch.setattr(main, "entry_points", lambda group: EntryPoints(found))


def test_commands_of_plugins_are_listed_run_and_reported_as_theirs(plugin_commands: None, cli: Any) -> None:
    listed = cli("--help")
    assert "greet" in listed.out
    assert "Of the plug-in n2kit-greetings." in listed.out
    assert "greeting" not in sys.modules  # to name it, it was not imported
    assert cli("greet", "hello").out == "hello\n"
    broken = cli("broken", "hello")
    assert broken.code == 3
    assert "the command broken of the plug-in n2kit-greetings is broken: SystemExit: no" in broken.err
    assert cli("greeet").code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train:\n  lr: 1e-4\n  seed: 1\n  lr: 1e-5\n", "r.yaml:4: train.lr is set twice, first at {}/r.yaml:2"),
        ("train: {lr: 1, lr: 2}\n", "r.yaml:1: train.lr is set twice"),
        ("train: {lr: 1}\nhead: {width: 8}\ntrain: {seed: 1}\n", "r.yaml:3: train is set twice, first at {}/r.yaml:1"),
        ("train.lr: 1\ntrain:\n  lr: 2\n", "r.yaml:3: train.lr is set twice, first at {}/r.yaml:1"),
    ],
)
def test_a_setting_that_is_there_twice_is_refused(text: str, said: str, cli: Any, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    result = cli("config", "show", "--recipe", tmp_path / "r.yaml")
    assert result.code == 2
    assert said.format(tmp_path) in result.err


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "n2kit.yaml:2: not valid YAML: the alias *a0"),
        ("train: &t {lr: *t}", "n2kit.yaml:1: not valid YAML: the alias *t"),
        ("train:\n  lr: " + "[" * 100_000, "n2kit.yaml:2: not valid YAML: "),
        ("train: !mine\n  lr: 1e-4", "n2kit.yaml:1: not valid YAML: the tag !mine"),
        ("train: {lr: 1}\ntrain: {lr: 2}", "n2kit.yaml:2: train is set twice"),
    ],
)
def test_a_project_file_that_is_an_attack_is_refused_by_line(
    text: str, said: str, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "n2kit.yaml").write_text(text)
    done = cli("plan", "--llm", "qwen:tiny", "--vision", "clip:tiny")
    assert (done.code, said in done.err) == (2, True), done.err
    (tmp_path / "n2kit.yaml").rename(tmp_path / "template.yaml")
    for arguments in (
        ("build", "qwen:tiny", "--variant", "text_only", "--recipe", "template.yaml", "--dry-run"),
        ("build", "qwen:tiny", "--variant", "text_only", "--set", "prompt.template=template.yaml", "--dry-run"),
        ("bench", "template.yaml"),
    ):
        done = cli(*arguments)
        assert (done.code, "template.yaml" in done.err, len(done.err) < 400) == (2, True, True), done.err


@pytest.mark.parametrize("value", ["[" * 100_000, "{" * 100_000, "*a", "&a [*a]", "!x 1", "{a: 1, a: 2}"])
def test_a_value_of_set_that_is_no_value_is_refused(value: str, cli: Any) -> None:
    done = cli("build", "qwen:tiny", "--variant", "text_only", "--dry-run", "--set", f"train.lr={value}")
    assert (done.code, "is no YAML value" in done.err, len(done.err) < 400) == (2, True, True), done.err


def test_a_setting_whose_name_is_no_text_is_refused(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("train:\n  ? [1, 2]\n  : 3\n")
    result = cli("config", "show", "--recipe", tmp_path / "r.yaml")
    assert (result.code, "r.yaml:2: a key that is no text" in result.err) == (2, True)


def test_processors_have_no_numbers() -> None:
    from n2kit.utils.device import pick_device

    with pytest.raises(BadInput, match="'cpu:7': there is one cpu, and it has no number"):
        pick_device("cpu:7")
    assert pick_device("cpu").type == "cpu"


def test_shards_of_another_command_are_cleared_away(
    cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    left = tmp_path / ".v.parquet.parts-0123456789ab"
    left.mkdir()
    (left / "000000.parquet").write_bytes(b"of another model")
    others = tmp_path / ".w.parquet.parts-0123456789ab"
    others.mkdir()
    done = cli("embed", tiny_bundle, "--items", "items.jsonl", "--images", "images", "-o", tmp_path / "v.parquet")
    assert done.code == 0
    assert sorted(f.name for f in tmp_path.iterdir()) == [others.name, "v.parquet"]


@pytest.mark.parametrize(
    "arguments", [["index", "v.parquet", "-o", "x\udcff"], ["train", "b\udcff"], ["ls", "\ud800", "--json"]]
)
def test_a_name_that_is_no_utf8_is_refused_before_any_work(arguments: list[str], cli: Any) -> None:
    """JSON and Parquet, in which results name their inputs, cannot hold it."""
    done = cli(*arguments)
    assert done.code == 2
    assert "is no UTF-8" in done.err
    assert "rename the file" in done.err
