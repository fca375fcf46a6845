"""Whatever the environment, a file or a name brings: one clear line, the right exit code, and nothing that drives a terminal."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from n2kit import read_items
from n2kit.data.pairs import read_pairs
from n2kit.errors import BadInput
from n2kit.recipe.settings import Recipe
from n2kit.utils.files import atomic_write
from n2kit.utils.launcher import MEETING, NUMBERS, OF_MPI, check_launcher, is_launched
from n2kit_cli import variables
from n2kit_cli.output import printable, say, table

WHOLE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in (*NUMBERS, *MEETING, *OF_MPI):
        monkeypatch.delenv(name, raising=False)
    return lambda settings: [monkeypatch.setenv(name, value) for name, value in settings.items()]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE in the environment, but no RANK and MASTER_ADDR and MASTER_PORT"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK in the environment"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "but no MASTER_ADDR and MASTER_PORT"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' in the environment is no number"),
        ({**WHOLE, "RANK": "-1"}, "RANK='-1'"),
        ({"PMI_SIZE": "4"}, "PMI_SIZE=4 in the environment: MPI started this process"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "WORLD_SIZE": "1"}, "OMPI_COMM_WORLD_SIZE=2 in the environment"),
    ],
)
def test_half_a_launcher_is_refused(settings: dict[str, str], said: str, launcher: Any) -> None:
    launcher(settings)
    with pytest.raises(BadInput, match=said) as refused:
        check_launcher()
    assert "unset" in str(refused.value.hint)
    assert not is_launched() or settings["RANK"] == "-1"


@pytest.mark.parametrize(
    ("settings", "launched"),
    [({}, False), ({"WORLD_SIZE": "1", "PMI_SIZE": "1"}, False), (WHOLE | {"PMI_SIZE": "2"}, True)],
)
def test_a_launcher_or_none_is_fine(settings: dict[str, str], launched: bool, launcher: Any) -> None:
    launcher(settings)
    check_launcher()
    assert is_launched() is launched


def test_a_rank_without_a_launcher_silences_nothing(launcher: Any, cli: Any, at_workspace: Path) -> None:
    launcher({"RANK": "3"})
    assert "qwen" in cli("ls", "llm").out


def test_training_under_half_a_launcher_is_one_line(
    launcher: Any, cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    launcher({"WORLD_SIZE": "4", "LOCAL_RANK": "0"})
    files = ("--items", "items.jsonl", "--pairs", "train.csv", "--images", "images", "-o", tmp_path / "run")
    done = cli("train", tiny_bundle, *files)
    assert (done.code, "no launcher started this process" in done.err) == (2, True), done.err


@pytest.mark.parametrize("problem", [MemoryError(), MemoryError("2 GB"), RuntimeError("x: can't allocate memory: 9")])
def test_too_little_memory_is_the_environments_fault(
    problem: Exception, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import n2kit.plugins.catalogue

    def fail() -> None:
        raise problem

    monkeypatch.setattr(n2kit.plugins.catalogue, "default_catalogue", fail)
    done = cli("ls")
    assert (done.code, "error: not enough memory" in done.err, "hint: " in done.err) == (3, True, True)


def test_a_device_without_a_name_is_refused(cli: Any, at_workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    files = ("--items", "items.jsonl", "--images", "images", "-o", tmp_path / "v.parquet")
    done = cli("embed", tiny_bundle, *files, "--device", "")
    assert (done.code, "'' is no device" in done.err) == (2, True), done.err


def test_a_full_disk_is_named_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as full, atomic_write(tmp_path / "a.json"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "a.json")


def test_a_variable_that_is_not_read_is_said_once(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("N2KIT_CAHCE", "N2KIT_TRAIN_LR", "N2KIT_TRAIN__LR", "N2KIT_LLM"):
        monkeypatch.setenv(name, "1")
    err = cli("plugins", "known").err
    assert err.count("N2KIT_CAHCE is not read; did you mean N2KIT_CACHE") == 1
    assert "N2KIT_TRAIN_LR is not read; did you mean N2KIT_TRAIN__LR?" in err
    assert err.count("is not read") == 2


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("N2KIT_TRIAN__LR", "did you mean N2KIT_TRAIN__LR?"),
        ("N2KIT_LLM_TUNE", "did you mean N2KIT_LLM__TUNE?"),
        ("N2KIT_TRIAN", "did you mean N2KIT_TRAIN__KEY?"),
        ("N2KIT_VARIENT", "did you mean N2KIT_VARIANT?"),
        ("N2KIT_QQQQ", "settings are N2KIT_SECTION__KEY, such as N2KIT_TRAIN__LR"),
    ],
)
def test_what_a_variable_may_mean_can_be_set(
    name: str, meant: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    variables.warn_of_unread_variables()
    assert f"the variable {name} is not read; {meant}\n" in capsys.readouterr().err


def test_the_sections_of_variables_are_those_of_a_recipe() -> None:
    assert set(variables.SECTIONS) == set(Recipe.model_fields)


def test_ids_drive_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "\x1b[31mred\x07\x9b2J\u202eevil\rover"
    table(("id",), [(odd,)], title=None)
    say(f"unknown id {odd}\nnext")
    out, err = capsys.readouterr()
    for text in (out, err):
        assert "\\x1b[31mred\\x07\\x9b2J\\u202eevil\\rover" in text
        assert not any(c in text for c in "\x1b\x07\x9b\u202e\r")
    assert err.endswith("over\nnext\n")
    assert printable("plain, 红色, é — …") == "plain, 红色, é — …"


def test_a_first_row_that_is_taken_for_a_header_is_said(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "items.csv").write_text("id,title\nitem 1,a\nitem 2,b\ndoc3,c\n")
    items = read_items(tmp_path / "items.csv")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("item a,item b\nitem 1,item 2\n")
    found = read_pairs(pairs, items)
    assert found.notes == [f"{pairs}:1: item a, item b: taken for a header, and not for a pair"]
    assert list(found) == [("item 1", "item 2")]
    pairs.write_text("item 1,item 2\nitem 2,doc3\n")
    assert (len(read_pairs(pairs, items)), read_pairs(pairs, items).notes) == (2, [])
    pairs.write_text("query,target\nitem 1,item 2\n")
    assert read_pairs(pairs, items).notes == []
    pairs.write_text("query,target,Target\nitem 1,item 2,doc3\n")
    with pytest.raises(BadInput, match="1: two columns are called 'target'"):
        read_pairs(pairs, items)
