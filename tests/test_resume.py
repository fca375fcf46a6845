"""A training cannot be lost: killed, stopped, out of disk or exploding, it goes on, or says why not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import Trainer

import forks
from n2kit import read_items, read_pairs
from n2kit.bundle import io as bundle
from n2kit.errors import BadInput, Failed, Unavailable
from n2kit.recipe.settings import resolve
from n2kit.train import RunResult, checkpoint, train
from n2kit.train.best import Best
from n2kit.train.gradient_spikes import MAX_CONSECUTIVE, MIN_NORMS, GradientSpikeGuard
from n2kit.train.resume import load_optimizer, optimizer_state, random_state, set_random_state
from n2kit.train.validate import Measured
from n2kit.utils.locks import file_lock

SETTINGS: dict[str, Any] = {
    "train.batch_size": 4,
    "train.max_steps": 8,
    "train.save_steps": 2,
    "train.log_steps": 1,
    "train.eval_steps": 2,
    "train.lr": 3e-3,
    "train.precision": "fp32",
}


@pytest.fixture
def run(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> Any:
    """`run(folder, **settings)` trains; its events are in `run.events`."""
    items = read_items(workspace / "items.jsonl")

    def call(folder: str = "run", **settings: Any) -> RunResult:
        recipe = resolve(SETTINGS | settings, base=bundle.read_recipe(tiny_bundle), env={}).recipe
        call.events.clear()  # type: ignore[attr-defined]
        return train(
            tiny_bundle, items, read_pairs(workspace / "train.csv", items), recipe, tmp_path / folder,
            images=workspace / "images", val_pairs=read_pairs(workspace / "val.csv", items), report=call.events.append,  # type: ignore[attr-defined]
        )  # fmt: skip

    call.events = []  # type: ignore[attr-defined]
    return call


@pytest.fixture
def recalls(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`recalls([0.1, 0.5])`: what the validations of the next run give, in place of what they find."""

    def script(values: list[float]) -> None:
        left = iter(values)
        monkeypatch.setattr(
            "n2kit.train.engine.validation",
            lambda *_: lambda: Measured({"recall@1": 0.0, "recall@10": next(left)}, []),
        )

    return script


def weights(folder: Path | str) -> dict[str, torch.Tensor]:
    return {f"{f.name}:{k}": v for f in sorted(Path(folder).rglob("*.safetensors")) for k, v in load_file(f).items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


class Killed(BaseException):
    """A stand-in for SIGKILL in this process: nothing may catch it, and nothing is tidied up but what `finally` does."""


def test_the_bundle_has_the_weights_of_the_best_validation(run: Any, recalls: Any, tmp_path: Path) -> None:
    recalls([0.1, 0.5, 0.5, 0.2])
    result = run()
    assert (result.best_step, result.recall, result.steps) == (4, {"1": 0.0, "10": 0.5}, 8)
    assert [e["best_step"] for e in run.events if e["event"] == "recall"] == [2, 4, 4, 4]
    kept = load_file(checkpoint.best_file(tmp_path / "run" / "checkpoints", 4))
    best = {name.removeprefix("model."): tensor for name, tensor in kept.items()}
    recalls([0.1, 0.5, 0.5, 0.2])
    last = run("last", **{"train.keep_best": False})
    assert (last.best_step, last.recall["10"]) == (4, 0.2)
    model, other = bundle.load(result.bundle), bundle.load(last.bundle)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in best.items())
    assert not all(torch.equal(other.state_dict()[k], v) for k, v in best.items())
    assert not list((tmp_path / "last" / "checkpoints").glob("best-*"))


def test_training_stops_when_patience_is_at_its_end(run: Any, recalls: Any) -> None:
    recalls([0.1, 0.5, 0.4, 0.3, 0.9])
    result = run(**{"train.max_steps": 20, "train.patience": 2})
    assert (result.steps, result.best_step, result.stopped_early, result.interrupted) == (8, 4, True, False)


def test_a_run_killed_after_it_stopped_early_does_not_train_on(
    run: Any, recalls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted, patient = [0.1, 0.5, 0.4, 0.3, 0.9], {"train.max_steps": 20, "train.patience": 2}
    recalls(scripted)
    whole = run("whole", **patient)
    recalls(scripted)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "save", lambda *_, **__: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            run("broken", **patient)
    recalls([])  # a further validation would fail
    again = run("broken", **patient)
    assert (again.steps, again.best_step, again.recall, again.resumed_from) == (8, 4, whole.recall, 8)
    assert again.stopped_early
    assert same(weights(whole.bundle), weights(again.bundle))


@pytest.mark.slow
def test_patience_and_the_best_step_are_carried_over_a_stop(
    run: Any, recalls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at each save: the best step of before the kill is kept, and what was waited counts."""
    scripted, patient = [0.3, 0.5, 0.4, 0.4, 0.5, 0.6], {"train.max_steps": 30, "train.patience": 3}
    recalls(scripted)
    whole = run("whole", **patient)
    assert (whole.steps, whole.best_step) == (10, 4)
    real = checkpoint.write
    for n in range(4):

        def then_die(*args: Any) -> None:
            real(*args)
            raise Killed

        monkeypatch.setattr("n2kit.train.trainer.write", then_die)
        recalls(scripted[n:])
        with pytest.raises(Killed):
            run("broken", **patient)
    monkeypatch.setattr("n2kit.train.trainer.write", real)
    recalls(scripted[4:])
    again = run("broken", **patient)
    assert (again.steps, again.best_step, again.resumed_from, again.recall) == (10, 4, 8, whole.recall)
    assert same(weights(whole.bundle), weights(again.bundle))


def test_patience_needs_validation_pairs(workspace: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    items = read_items(workspace / "items.jsonl")
    recipe = resolve(SETTINGS | {"train.patience": 1}, base=bundle.read_recipe(tiny_bundle), env={}).recipe
    with pytest.raises(BadInput, match="no validation pairs"):
        train(tiny_bundle, items, read_pairs(workspace / "train.csv", items), recipe, tmp_path, images=workspace)


def test_what_is_compared_can_be_chosen(run: Any) -> None:
    result = run(**{"train.max_steps": 2, "train.best_metric": "ndcg@3"})
    (seen,) = (e for e in run.events if e["event"] == "recall")
    assert {"eval_recall@1", "eval_recall@10", "eval_ndcg@3"} <= set(seen)
    assert set(result.recall) == {"1", "10"}
    with pytest.raises(BadInput, match="train.best_metric"):
        resolve({"train.best_metric": "accuracy"}, env={})


def test_validation_is_what_eval_says(run: Any, workspace: Path, tmp_path: Path, cli: Any) -> None:
    """The recall that a training reports of its best step, and that of `n2kit embed` and `n2kit eval` on its bundle."""
    result = run()
    ids = {i for line in (workspace / "val.csv").read_text().splitlines()[1:] for i in line.split(",")}
    lines = [line for line in (workspace / "items.jsonl").read_text().splitlines() if json.loads(line)["id"] in ids]
    (tmp_path / "val.jsonl").write_text("\n".join(lines))
    vectors = tmp_path / "vectors.parquet"
    embedded = cli(
        "embed", result.bundle, "--items", tmp_path / "val.jsonl", "--images", workspace / "images", "-o", vectors,
        "--precision", "fp32",
    )  # fmt: skip
    assert embedded.code == 0, embedded.err
    shown = cli("eval", "--vectors", vectors, "--pairs", workspace / "val.csv", "--k", "1,10", "--json")
    assert json.loads(shown.out)["recall"] == result.recall


def test_no_checkpoint_needs_unpickling(run: Any, tmp_path: Path) -> None:
    run(**{"train.max_steps": 4})
    files = {f.name for f in (tmp_path / "run").rglob("*") if f.is_file()}
    assert files >= {"model.safetensors", "optimizer.safetensors", "state.json", "trainer_state.json"}
    assert {Path(name).suffix for name in files} <= {".safetensors", ".json", ".jsonl", ".yaml", ".lock", ".md"}


def test_an_optimiser_and_the_generators_come_back_bit_equal() -> None:
    torch.manual_seed(3)
    layer = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW([{"params": [layer.weight], "lr": 1e-3}, {"params": [layer.bias], "lr": 0.1 + 0.2}])
    for _ in range(3):
        layer(torch.randn(2, 4)).sum().backward()
        optimizer.step()
    moments, groups = optimizer_state(optimizer)
    other = torch.optim.AdamW([{"params": [layer.weight]}, {"params": [layer.bias]}], lr=9.0)
    load_optimizer(other, moments, json.loads(json.dumps(groups)))
    assert str(other.state_dict()) == str(optimizer.state_dict())
    random.gauss(0, 1)
    np.random.randn()  # half of a pair of normal numbers is kept for the next call
    state = json.loads(json.dumps(random_state(torch.device("cpu"))))

    def drawn() -> tuple[Any, ...]:
        return random.gauss(0, 1), np.random.randn(3).tolist(), torch.randn(3).tolist()

    first = drawn()
    set_random_state(state, torch.device("cpu"))
    assert drawn() == first


def damaged(file: Path) -> None:
    """Of the same length, and no safetensors any more."""
    file.write_bytes(b"\xff" * 16 + file.read_bytes()[16:])


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["model.safetensors", "optimizer.safetensors", "best-2.safetensors"])
def test_weights_that_cannot_be_read_are_passed_over(victim: str, run: Any, tmp_path: Path, recalls: Any) -> None:
    recalls([0.5, 0.1])
    whole = run(**{"train.max_steps": 4})
    folder = tmp_path / "run"
    (folder / "result.json").unlink()
    best = victim.startswith("best")  # which both checkpoints name
    damaged(folder / "checkpoints" / victim if best else folder / "checkpoints" / "checkpoint-4" / victim)
    recalls([0.5, 0.1] if best else [0.1])
    again = run(**{"train.max_steps": 4})
    assert again.resumed_from == (None if best else 2)
    assert same(weights(whole.bundle), weights(again.bundle))


OLD_NAMES = {"connector_scale": "gain", "special_tokens.": "words."}


def test_a_run_whose_checkpoint_has_the_names_of_before_goes_on(run: Any, tmp_path: Path) -> None:
    """An n2kit before called the special tokens' table and the connector's scale by other names."""
    whole = weights(run(**{"train.max_steps": 4}).bundle)
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-4")
    for file in (tmp_path / "run" / "checkpoints").rglob("*.safetensors"):
        tensors = load_file(file)
        old = {name: tensor for name, tensor in tensors.items() if "optimizer" not in file.name}
        for new, name in OLD_NAMES.items():
            old = {n.replace(new, name): t for n, t in old.items()}
        if old:
            assert old.keys() != tensors.keys()
            save_file(old, file)
    for file in (tmp_path / "run" / "checkpoints").rglob("state.json"):
        state = json.loads(file.read_text())
        state["files"] = {name: (file.parent / name).stat().st_size for name in state["files"]}
        file.write_text(json.dumps(state))
    again = run(**{"train.max_steps": 4})
    assert again.resumed_from == 2
    assert same(whole, weights(again.bundle))


def test_best_weights_do_not_pile_up(run: Any, recalls: Any, tmp_path: Path) -> None:
    recalls([0.1, 0.2, 0.3, 0.4])
    run(**{"train.eval_steps": 1, "train.save_steps": 9, "train.max_steps": 4})
    assert [f.name for f in (tmp_path / "run" / "checkpoints").glob("best-*")] == ["best-4.safetensors"]


def test_a_finished_run_whose_bundle_is_damaged_says_how_to_finish_it_again(run: Any, tmp_path: Path) -> None:
    whole = weights(run().bundle)
    (tmp_path / "run" / "bundle" / "joint.safetensors").unlink()
    with pytest.raises(BadInput, match="is damaged: joint.safetensors is missing") as caught:
        run()
    assert "result.json, and the same command finishes the run" in str(caught.value.hint)
    (tmp_path / "run" / "result.json").unlink()
    assert same(whole, weights(run().bundle))


def test_seconds_are_those_of_all_sittings(run: Any, tmp_path: Path) -> None:
    first = run()
    (tmp_path / "run" / "result.json").unlink()
    second = run()
    assert (first.earlier_s, second.resumed_from) == (0, 8)
    assert second.earlier_s == pytest.approx(first.seconds, abs=max(2.0, first.seconds / 2))


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["optimizer.safetensors", "state.json", "best"])
def test_a_damaged_checkpoint_is_passed_over(victim: str, run: Any, tmp_path: Path) -> None:
    whole = run(**{"train.max_steps": 4})
    folder = tmp_path / "run"
    (folder / "result.json").unlink()
    if victim == "best":
        for file in (folder / "checkpoints").glob("best-*"):
            file.unlink()
    else:
        file = folder / "checkpoints" / "checkpoint-4" / victim
        file.write_bytes(file.read_bytes()[:-7])
    again = run(**{"train.max_steps": 4})
    assert again.resumed_from == (None if victim == "best" else 2)
    assert same(weights(whole.bundle), weights(again.bundle))
    assert not list((folder / "checkpoints").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["model.safetensors", "optimizer.safetensors", "best-4.safetensors"])
def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(
    what: str, run: Any, tmp_path: Path, recalls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalls([0.1, 0.2, 0.3, 0.4])
    whole = run("whole")
    real = checkpoint.save_file

    def no_space(tensors: Any, file: Path) -> None:
        """Fail as safetensors does when the disk is full at step 4."""
        if what in file.name and "-4." in str(file):
            file.write_bytes(b"half")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        real(tensors, file)

    recalls([0.1, 0.2, 0.3, 0.4])
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", no_space)
        with pytest.raises(Unavailable, match=r"cannot be written: No space left on device") as caught:
            run("full")
    assert caught.value.hint is not None
    assert "free some space; the same command goes on" in caught.value.hint
    left = tmp_path / "full" / "checkpoints"
    assert sorted(f.name for f in left.iterdir() if not f.name.startswith("best-4")) == [
        "best-2.safetensors",
        "checkpoint-2",
    ]
    recalls([0.2, 0.3, 0.4])
    again = run("full")
    assert again.resumed_from == 2
    assert same(weights(whole.bundle), weights(again.bundle))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_is_really_full(
    workspace: Path, tiny_bundle: Path, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk with room for a checkpoint and a half; then one with room for all."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(f.stat().st_size for f in tiny_bundle.rglob("*.safetensors"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={6 * size}", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    arguments = ["train", tiny_bundle, "--items", workspace / "items.jsonl", "--pairs", workspace / "train.csv",
        "--images", workspace / "images", "-o", disk / "run", "--max-steps", "6", "--batch-size", "4", "--lr", "1e-3",
        "--set", "train.save_steps=1", "--set", "train.feature_cache_gb=0", "--set", "train.precision=fp32"]  # fmt: skip
    try:
        done = cli(*arguments)
        assert done.code == 3, done.err
        assert "No space left on device" in done.err
        assert "hint: free some space" in done.err
        kept = checkpoint.last(disk / "run" / "checkpoints")
        assert kept is not None
        subprocess.run(["mount", "-o", "remount,size=1G", str(disk)], check=True)
        done = cli(*arguments)
        assert done.code == 0, done.err
        assert f"6 steps, from step {checkpoint.step_of(kept)}" in done.err
        whole = cli(*[tmp_path / "whole" if a == disk / "run" else a for a in arguments])
        assert whole.code == 0, whole.err
        assert same(weights(disk / "run" / "bundle"), weights(tmp_path / "whole" / "bundle"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_folder_has_one_process_at_a_time(run: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lock = tmp_path / "elsewhere"
    with file_lock(lock, "it"), pytest.raises(BadInput, match=r"in use by process \d+"), file_lock(lock, "it"):
        pass
    run(**{"train.max_steps": 1})
    with file_lock(tmp_path / "run" / "run.lock", "x"), pytest.raises(BadInput, match=r"in use by process \d+"):
        run(**{"train.max_steps": 1})


def test_the_result_of_an_earlier_version_is_read(run: Any, tmp_path: Path) -> None:
    first = run(**{"train.max_steps": 1})
    file = tmp_path / "run" / "result.json"
    content = json.loads(file.read_text("utf8"))
    content["barren"] = content.pop("steps_without_negatives") + 3
    file.write_text(json.dumps(content), "utf8")
    again = run(**{"train.max_steps": 1})
    assert (again.done_before, again.fingerprint) == (True, first.fingerprint)
    assert again.steps_without_negatives == first.steps_without_negatives + 3


def test_an_exploding_gradient_is_told_from_a_large_one() -> None:
    guard = GradientSpikeGuard(10.0)
    assert not any(guard.update(1.0 + n % 2) for n in range(MIN_NORMS))
    assert not any(guard.update(100.0) for _ in range(MAX_CONSECUTIVE - 1))
    assert not guard.update(2.0)  # it came back
    other = GradientSpikeGuard(10.0)
    other.restore(json.loads(json.dumps(guard.state())))
    assert [other.update(100.0) for _ in range(MAX_CONSECUTIVE)] == [False] * (MAX_CONSECUTIVE - 1) + [True]
    assert not any(GradientSpikeGuard(None).update(10.0**n) for n in range(40))
    satisfied = GradientSpikeGuard(100.0)  # a hinge that has no more to teach, most of the time
    assert not any(satisfied.update(norm) for norm in [0.5] * 30 + [0.0] * 155 + [0.01] * 5)
    slow = GradientSpikeGuard(10.0)
    assert not any(slow.update(1.03**n) for n in range(400))  # what grows slowly is followed


@pytest.mark.slow
def test_an_explosion_stops_the_run_before_its_checkpoint(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def norms(self: Any, model: Any) -> torch.Tensor:
        return torch.tensor(1.0 if self.state.global_step < 25 else 1e4)

    monkeypatch.setattr(Trainer, "_clip_grad_norm", norms)
    with pytest.raises(
        Failed,
        match=r"was 5 steps in a row more than 100 times its median at step 30; items of the batch: (noto|twemoji)",
    ) as caught:
        run(**{"train.max_steps": 60, "train.save_steps": 1})
    assert "checkpoint-25 is kept" in str(caught.value.hint)
    assert run("off", **{"train.max_steps": 32, "train.explosion": None}).steps == 32


def test_a_gradient_that_is_not_finite_changes_no_weight(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer._clip_grad_norm

    def norms(self: Any, model: Any) -> torch.Tensor:
        return torch.tensor(float("nan")) if self.state.global_step == 4 else real(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_clip_grad_norm", norms)
        with pytest.raises(
            Failed, match=r"the gradient is nan at step 5; items of the batch: (noto|twemoji)"
        ) as caught:
            run()
    assert "checkpoint-4 is kept" in str(caught.value.hint)
    assert run().resumed_from == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_prints_how_to_go_on(
    number: signal.Signals,
    workspace: Path,
    tiny_bundle: Path,
    tmp_path: Path,
    cli: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from n2kit_cli import train as command

    real = command._reporter

    def reporter(bar: Any) -> Any:
        report = real(bar)

        def call(event: dict[str, Any]) -> None:
            report(event)
            if event["event"] == "step" and event["step"] == 2:
                os.kill(os.getpid(), number)

        return call

    arguments = ["train", tiny_bundle, "--items", workspace / "items.jsonl", "--pairs", workspace / "train.csv",
        "--images", workspace / "images", "-o", tmp_path / "my run", "--max-steps", "5", "--batch-size", "4",
        "--set", "train.log_steps=1"]  # fmt: skip
    monkeypatch.setenv("N2KIT_TRAIN__LR", "0.001")
    with monkeypatch.context() as patch:
        patch.setattr(command, "_reporter", reporter)
        stopped = cli(*arguments)
    assert stopped.code == 130
    assert "a checkpoint is saved" in stopped.err
    (line,) = (line for line in stopped.err.splitlines() if line.startswith("interrupted; to go on: "))
    assert f" N2KIT_TRAIN__LR=0.001 n2kit train {tiny_bundle} --items" in line
    assert f"'{tmp_path / 'my run'}'" in line
    monkeypatch.delenv("N2KIT_TRAIN__LR")
    script = f'n2kit() {{ printf \'%s\\0\' "$N2KIT_TRAIN__LR" "$@"; }}\n{line.split("go on: ")[1]}'
    printed = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
    rate, *words = printed.split("\0")[:-1]  # as a shell reads what is pasted into it
    pasted = forks.run(["-m", "n2kit_cli.main", *words], env=os.environ | {"N2KIT_TRAIN__LR": rate})
    assert pasted.returncode == 0, pasted.stderr
    assert "5 steps, from step" in pasted.stderr


MIDWAY = """
import os, signal
from n2kit.train import checkpoint
from n2kit_cli.main import main

real, calls = checkpoint.save_file, []

def save_file(tensors, file):
    calls.append(file)
    if len(calls) == {calls}:
        real(dict(list(tensors.items())[:2]), file)
        os.kill(os.getpid(), signal.SIGKILL)
    real(tensors, file)

checkpoint.save_file = save_file
main({arguments!r})
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_bit_equal(workspace: Path, tiny_bundle: Path, tmp_path: Path, cli: Any) -> None:
    """SIGKILL at a random moment, while a checkpoint is being written (seen from outside), and twice between its files."""
    common: list[str | Path] = [
        "train", tiny_bundle, "--items", workspace / "items.jsonl", "--pairs", workspace / "train.csv", "--val-pairs", workspace / "val.csv",
        "--images", workspace / "images", "--max-steps", "31", "--batch-size", "3", "--lr", "3e-3", "--tune", "llm=lora:2,vision=last:1",
        "--set", "train.save_steps=1", "--set", "train.eval_steps=2", "--set", "train.patience=30", "--set", "train.precision=fp32",
        "--set", "train.log_steps=1", "--device", "cpu",
    ]  # fmt: skip
    whole = cli(*common, "-o", tmp_path / "whole")
    assert whole.code == 0, whole.err
    folder = tmp_path / "killed"
    checkpoints = folder / "checkpoints"
    arguments = [str(a) for a in [*common, "-o", folder]]

    def kill(when: Any, calls: int = 10**9) -> None:
        script = MIDWAY.format(calls=calls, arguments=arguments)
        with forks.Popen(["-c", script], stderr=subprocess.PIPE) as running:
            while running.poll() is None and not when():
                time.sleep(0.0005)
            running.kill()
        assert running.returncode == -signal.SIGKILL
        assert not (folder / "result.json").exists()

    def steps() -> int:
        return len((folder / "events.jsonl").read_text().splitlines()) if (folder / "events.jsonl").is_file() else 0

    later = random.Random(time.time()).randint(3, 9)
    kill(lambda: steps() > later)
    after = steps()
    kill(lambda: steps() > after + 2 and any(checkpoints.glob(".checkpoint-*.tmp/*")))
    for calls in (2, 9):
        kill(lambda: False, calls)
        assert any(checkpoints.glob(".*.tmp"))  # what the next one sweeps
    done = cli(*common, "-o", folder)
    assert done.code == 0, done.err
    assert "from step" in done.err
    assert not list(checkpoints.glob(".*"))
    assert same(weights(tmp_path / "whole" / "bundle"), weights(folder / "bundle"))
    one, two = (json.loads((f / "result.json").read_text()) for f in (tmp_path / "whole", folder))
    assert {k: one[k] for k in ("recall", "best_step", "steps", "frozen", "fingerprint")} == {
        k: two[k] for k in ("recall", "best_step", "steps", "frozen", "fingerprint")
    }


def test_a_run_keeps_its_precision_over_a_stop(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A precision that is tried on a busy machine may come out otherwise the second time; the weights must not."""
    tried = {"train.max_steps": 4, "train.precision": "auto"}
    monkeypatch.setattr("n2kit.utils.device.bf16_gain", lambda: 0.5)
    whole = run("whole", **tried)
    real = checkpoint.write

    def then_die(*args: Any) -> None:
        real(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("n2kit.train.trainer.write", then_die)
        with pytest.raises(Killed):
            run("broken", **tried)
    monkeypatch.setattr("n2kit.utils.device.bf16_gain", lambda: 2.0)
    again = run("broken", **tried)
    assert run.events[0]["precision"] == "fp32, as before the stop"
    assert same(weights(whole.bundle), weights(again.bundle))
    assert again.recall == whole.recall


def test_how_often_to_save_is_said_anew_at_a_resume(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    real = checkpoint.write

    def note(folder: Path, step: int, *args: Any) -> None:
        real(folder, step, *args)
        steps.append(step)
        if len(steps) == 1:
            raise Killed

    monkeypatch.setattr("n2kit.train.trainer.write", note)
    with pytest.raises(Killed):
        run(**{"train.max_steps": 6, "train.save_steps": 3, "train.log_steps": 6})
    run(**{"train.max_steps": 6, "train.save_steps": 1, "train.log_steps": 1})
    assert steps == [3, 4, 5, 6]
    assert [e["step"] for e in run.events if e["event"] == "step"] == [4, 5, 6]


def test_a_run_that_stops_before_its_first_log_entry_has_a_loss(run: Any, recalls: Any) -> None:
    recalls([0.5, 0.1])
    result = run(**{"train.eval_steps": 1, "train.log_steps": 50, "train.max_steps": 60, "train.patience": 1})
    assert (result.steps, result.stopped_early) == (2, True)
    assert np.isfinite(result.loss)


def test_the_loss_of_a_run_does_not_depend_on_where_it_was_stopped(run: Any, tmp_path: Path) -> None:
    """Entries of the log are means since the entry before; a resumed run begins a new one."""
    settings = {"train.log_steps": 4, "train.max_steps": 6, "train.save_steps": 3}
    whole = run("whole", **settings)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    (tmp_path / "stopped/result.json").unlink()
    shutil.rmtree(tmp_path / "stopped/bundle")
    for later in (tmp_path / "stopped/checkpoints").iterdir():
        if later.name.endswith("6"):
            shutil.rmtree(later)
    again = run("stopped", **settings)
    assert again.resumed_from == 3
    assert again.loss == pytest.approx(whole.loss)


def test_a_folder_that_was_killed_at_its_birth_can_be_used(run: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.lock").touch()
    (tmp_path / "run" / ".run.json.tmp").write_text("{")
    assert run(**{"train.max_steps": 1}).steps == 1


def test_a_metric_that_cannot_fall_short_is_said(run: Any) -> None:
    def remarks(**settings: Any) -> list[str]:
        run("-".join(settings.values()) or "default", **{"train.max_steps": 1} | settings)
        return [e["text"] for e in run.events if e["event"] == "note"]

    (said,) = remarks()
    assert said.startswith(
        "recall@10 among the 2 items that a validation query may find is always 1, and chooses no step"
    )
    assert not remarks(**{"train.best_metric": "mrr"})


def test_best_is_the_first_of_equals() -> None:
    best = Best("recall@10", patience=2)
    assert [best.update(n, {"recall@10": v}, []) for n, v in enumerate([0.5, 0.5, 0.6, 0.2])] == [
        True,
        False,
        True,
        False,
    ]
    assert not best.patience_exhausted
    again = Best("recall@10", 2)
    again.restore(json.loads(json.dumps(best.state())))
    assert again == best
    assert not again.update(4, {"recall@10": 0.6}, [])
    assert again.patience_exhausted


def test_a_training_that_gets_better_is_not_stopped_though_it_is_not_ahead_of_its_start_yet() -> None:
    best, start = Best("mrr", patience=2), [0.0, 1.0, 0.0, 1.0]
    for step, values in enumerate([start, *([0.0, 1.0 - 0.05 * n, 0.1 * n, 1.0] for n in (1, 2, 3))]):
        best.update(step, {"mrr": sum(values) / len(values)}, values)
        again = Best("mrr", patience=2)
        again.restore(json.loads(json.dumps(best.state())))
        best = again
        assert not best.patience_exhausted
    assert best.step == 0
    for step in (4, 5):
        best.update(step, {"mrr": 0.5}, start)
    assert best.patience_exhausted


def test_a_start_is_left_only_for_more_than_a_standard_error() -> None:
    start, lucky, better = [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.9], [1.0, 1.0, 1.0, 0.9]

    def kept(*validations: list[float]) -> int | None:
        best = Best("mrr")
        for step, values in enumerate(validations):
            best.update(step, {"mrr": sum(values) / len(values)}, values)
            best.restore(json.loads(json.dumps(best.state())))  # a run that goes on knows its start
        return best.step

    assert kept(start, lucky) == 0  # ahead by 0.225, standard error 0.26
    assert kept(start, lucky, better) == 2
    assert kept(start, start) == 0
