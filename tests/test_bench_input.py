"""Matrix files and flags: bad ones get one line, and docs/bench.md names all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from n2kit.bench.matrix import combinations
from n2kit.bench.matrix.expand import expand
from n2kit.bench.matrix.spec import MatrixSpec, read_matrix
from n2kit.errors import BadInput

FILES = ("--items", "items.jsonl", "--pairs", "train.csv", "--test-pairs", "test.csv", "--images", "images")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("llm: [qwen\nvision: x", ":2: not valid YAML"),
        ("- a\n- b", ":1: expected the matrix by its keys"),
        ("llm: qwen\nvariants: basic", ":2: variants: there is no such key; did you mean variant"),
        ("llm: qwen\nseeds: -1", ":2: seeds"),
        ("seeds: [0, x]", ":1: seeds.1"),
        ("preset: papers", ":1: preset: Input should be 'paper' or 'quick'"),
        ("arms:\n- name: a\n- name: a", "two arms of one variant are called 'a'"),
        ("arms:\n- name: a\n  infrence: no-image", ":3: arms.0.infrence: there is no such key; did you mean inference"),
        ("bootstrap: many\nks: [0]", "2 entries are wrong"),
        ("bootstrap: 100000000\nks: [9999999999999]", "2 entries are wrong"),
        ("llm: qwen\nsettings: foo", ":2: settings"),
        ("seeds: 5\nllm: qwen\nseeds: 1", ":3: seeds is set twice, first at"),
        ("seeds: 100000000000000000000", ":1: seeds: at most 1000 seeds"),
        ("llm: &x [*x]", "not valid YAML"),
        ("llm: ','", ":1: llm: names nothing"),
        ("llm: qwen\n? [1, 2]\n: 3", ":2: a key that is no text"),
        ("llm: qwen\n1: 3", ":2: a key that is no text"),
    ],
)
def test_a_wrong_matrix_file_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "matrix.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=re.escape(message)):
        read_matrix(file, {})


def test_flags_count_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "matrix.yaml"
    file.write_text("llm: [qwen:tiny]\nseeds: 2\nsettings:\n  train:\n    max_steps: 3\n    lr: 1e-4\n")
    read = read_matrix(file, {"seeds": 3, "settings": {"train.max_steps": 7}})
    assert (read.llm, read.seeds, read.settings) == (["qwen:tiny"], [0, 1, 2], {"train.max_steps": 7, "train.lr": 1e-4})


@pytest.mark.usefixtures("at_workspace")
@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--variant", "bassic"), "there is no variant 'bassic'", "did you mean basic"),
        (("--llm", "qwenn:tiny"), "unknown llm 'qwenn'", "did you mean qwen"),
        (("--vision", "qwen:tiny"), "'qwen' is a llm, not a vision", "--llm qwen:tiny"),
        (("--connector", "qformer:0"), "connector", "n2kit ls qformer"),
        (("--preset", "papers"), "--preset: preset: Input should be", "docs/bench.md"),
        (("--set", "train.lrr=1"), "train.lrr", "did you mean train.lr"),
        (("--set", "x"), "expected key=value", "train.lr"),
        (("--baselines", "tfdif"), "unknown baseline 'tfdif'", "did you mean tfidf"),
        (("--baselines", "concat", "--set", "baseline.steps=3"), "baseline.steps", "baseline.max_steps"),
        (("--pairs", "none.csv"), "no pairs file none.csv", ""),
        (("--items", "none.jsonl"), "none.jsonl", ""),
        (("--pool", "none.csv"), "none.csv", ""),
        (("no.yaml",), "no matrix file no.yaml", "n2kit bench --help"),
        (("-o", "items.csv"), "n2kit bench did not make it", "another -o"),
        (("-o", "images"), "n2kit bench did not make it", "another -o"),
        (("--seeds", "0"), "--seeds", ""),
        (("--jobs", "0"), "--jobs", ""),
        (("--max-steps", "0"), "--max-steps", ""),
        (("--map", "title"), "--map 'title': expected field=column", "--map title=name"),
        (("--map", "title=0"), "no column", ""),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    cli: Any, tmp_path: Path, arguments: tuple[str, ...], message: str, hint: str
) -> None:
    out = () if "-o" in arguments else ("-o", tmp_path / "out")
    done = cli("bench", *FILES, "--llm", "qwen:tiny", "--vision", "siglip:tiny", *arguments, *out)
    error = next(line for line in done.err.splitlines() if line.startswith("error: "))
    assert (done.code, message in error, hint in done.err) == (2, True, True), done.err
    assert not (tmp_path / "out").exists()


def test_a_matrix_beyond_all_reason_is_refused_before_it_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"name{n}" for n in range(50_000)]
    matrix = MatrixSpec(llm=names, vision=names, fusion=names, connector=names)
    monkeypatch.setattr(combinations, "backbones_of", lambda matrix: pytest.fail("it is expanded"))
    with pytest.raises(BadInput, match="6,250,000,000,000,000,000 combinations, and 100,000 are the most"):
        expand(matrix, {})


@pytest.mark.usefixtures("at_workspace")
def test_data_must_be_named(cli: Any) -> None:
    done = cli("bench", "--llm", "qwen:tiny")
    assert (done.code, "error: the matrix names no items" in done.err) == (2, True)
    assert "--test-pairs FILE" in cli("bench", *FILES[:4]).err


@pytest.mark.usefixtures("at_workspace")
def test_no_torch_where_nothing_is_run(workspace: Path, tmp_path: Path) -> None:
    """A matrix that is done is shown in no time."""
    import subprocess
    import sys

    shutil.copytree(workspace, tmp_path / "w")
    code = (
        "import sys; from n2kit.bench.matrix.expand import expand; from n2kit.bench.runner.scheduler import run_matrix;"
        "from n2kit.bench.matrix.spec import MatrixSpec; from n2kit.bench.matrix.data import read_data\n"
        "m = MatrixSpec(llm=['qwen:tiny'], vision=['siglip:tiny'], items='items.jsonl', pairs='train.csv', test_pairs='test.csv', images='images')\n"
        "print(len(expand(m, read_data(m)[0].digests)), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path / "w", check=True)
    assert done.stdout.split() == ["1", "False"]


# ---- docs/bench.md


PAGE = (Path(__file__).parents[1] / "docs" / "bench.md").read_text("utf8")


def test_every_flag_has_its_line(cli: Any) -> None:
    flags = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", cli("bench", "--help").out, re.M)) - {"--help"}
    lines = re.findall(r"^\| (`.*?) \|", PAGE.split("## Each flag")[1].split("## How")[0], re.M)
    assert flags == set(re.findall(r"`(--[\w-]+)", " ".join(lines)))


def test_the_file_of_the_page_is_a_matrix(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    file = tmp_path / "matrix.yaml"
    file.write_text(text)
    matrix = read_matrix(file, {})
    assert matrix.settings == {"train.max_steps": 300, "train.new_lr": 2e-3}
    named = set(re.findall(r"`(\w+)`", PAGE.split("Other keys: ")[1].split("as the flags")[0]))
    assert named | matrix.model_fields_set == set(MatrixSpec.model_fields)


@pytest.mark.usefixtures("at_workspace")
def test_a_page_that_cannot_be_written_loses_no_matrix(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2kit.bench.runner.scheduler.run_local", lambda *_, **__: None)  # it is not about what is run
    (tmp_path / "out").mkdir()
    command = ("bench", *FILES, "--llm", "qwen:tiny", "--variant", "text_only", "-o", tmp_path / "out", "--json")
    assert cli(*command).code == 0
    (tmp_path / "out" / "report.html").unlink()
    (tmp_path / "out" / "report.html").mkdir()
    done = cli(*command)
    assert done.code == 0, done.err
    assert re.search(r"^no report: .*report\.html", done.err, re.M)
    assert json.loads(done.out.splitlines()[-1])["event"] == "result"
