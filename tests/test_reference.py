"""Parity with the paper's own code, and that the check can fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from n2kit.testing import reference

GOLDEN = Path(__file__).parent / "golden"
MODEL_CASES = [
    "text_only",
    "basic",
    "micl",
    "late_early_fusion",
    "only_late_fusion",
    "notellm2",
    "notellm2_no_reduction",
]
GENERATION_CASES = ["notellm_v1"]
SALIENCY_CASES = ["saliency_basic", "saliency_notellm2"]


@pytest.fixture(scope="module")
def results() -> dict[str, reference.CaseResult]:
    return {r.name: r for r in reference.check_cases(GOLDEN)}


@pytest.mark.parametrize("name", [*MODEL_CASES, *GENERATION_CASES, *SALIENCY_CASES, "recall"])
def test_case_passes(results: dict[str, reference.CaseResult], name: str) -> None:
    result = results[name]
    assert result.status == "passed", result.line()
    assert result.value <= 1e-5
    assert result.gradient <= 1e-4


def test_everything_in_the_files_is_compared(results: dict[str, reference.CaseResult]) -> None:
    for name in [*MODEL_CASES, *GENERATION_CASES, *SALIENCY_CASES]:
        data = load_file(GOLDEN / f"{name}.safetensors")
        stated = {k for k in data if k.startswith(("output.", "grad."))}
        assert stated <= set(results[name].differences)


@pytest.mark.parametrize("key", ["grad.lm_head.weight", "param.lm_head.weight", "grad.model.embed_tokens.weight"])
def test_a_wrong_answer_fails(tmp_path: Path, key: str) -> None:
    (tmp_path / "cases.json").write_text(json.dumps(_one_case(tmp_path, "notellm_v1")))
    file = tmp_path / "notellm_v1.safetensors"
    data = load_file(file)
    data[key][27] += data[key].abs().max() * 1e-2  # a token of an answer
    save_file(data, file)
    assert reference.main([str(tmp_path)]) == 1


def test_a_wrong_curve_fails(tmp_path: Path) -> None:
    (tmp_path / "cases.json").write_text(json.dumps(_one_case(tmp_path, "saliency_notellm2")))
    file = tmp_path / "saliency_notellm2.safetensors"
    data = load_file(file)
    data["output.saliency"][3, 1, 0] += 1e-3
    save_file(data, file)
    assert reference.main([str(tmp_path)]) == 1


def _one_case(folder: Path, name: str) -> dict[str, object]:
    content = json.loads((GOLDEN / "cases.json").read_text())
    content["cases"] = [c for c in content["cases"] if c["name"] == name]
    shutil.copy(GOLDEN / f"{name}.safetensors", folder)
    return content  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "key", ["output.embedding", "output.visual_tokens", "grad.query_tokens", "param.linear.weight", "grad.temperature"]
)
def test_a_wrong_number_fails(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cases.json").write_text(json.dumps(_one_case(tmp_path, "notellm2")))
    file = tmp_path / "notellm2.safetensors"
    data = load_file(file)
    data[key] = data[key] + data[key].abs().max() * 1e-3
    save_file(data, file)
    assert reference.main([str(tmp_path)]) == 1
    assert "failed" in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"temperature": 3.5}, {"text_weight": 3.0}, {"loss_visual": 1.0}])
def test_what_the_case_states_is_honoured(tmp_path: Path, change: dict[str, float]) -> None:
    content = _one_case(tmp_path, "notellm2")
    content["cases"][0].update(change)  # type: ignore[index]
    (tmp_path / "cases.json").write_text(json.dumps(content))
    data = load_file(tmp_path / "notellm2.safetensors")
    if "temperature" in change:  # the parameter is in the file too
        data["param.temperature"] = torch.tensor([3.5])
        save_file(data, tmp_path / "notellm2.safetensors")
    assert reference.main([str(tmp_path)]) == 1


def test_json_and_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([str(tmp_path)]) == 2
    shutil.copy(GOLDEN / "recall.json", tmp_path)
    shutil.copy(GOLDEN / "recall.safetensors", tmp_path)
    capsys.readouterr()
    assert reference.main([str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["status"] == "passed"
