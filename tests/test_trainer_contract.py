"""The part of transformers' Trainer that n2kit relies on: a version that changes it fails here, by name."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest
import transformers.trainer
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState

import n2kit
from n2kit.train.trainer import PairTrainer

REPAIR = "transformers changed; adapt core/n2kit/train/trainer.py, and then this table"
# Private methods that PairTrainer overrides → their parameters.
PRIVATE = {
    "_clip_grad_norm": ["self", "model"],
    "_init_training_state": [
        "self", "max_steps", "num_update_steps_per_epoch", "num_train_epochs", "resume_from_checkpoint", "trial",
    ],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_load_rng_state": ["self", "checkpoint"],
    "_save_checkpoint": ["self", "model", "trial"],
}  # fmt: skip
PUBLIC = {
    "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    "evaluate": ["self", "eval_dataset", "ignore_keys", "metric_key_prefix"],
    "log": ["self", "logs", "start_time"],
    "training_step": ["self", "model", "inputs", "num_items_in_batch"],
}


def _calls_on_self() -> set[str]:
    """Names of the methods that Trainer's own code calls as `self.NAME(…)`."""
    tree = ast.parse(inspect.getsource(transformers.trainer))
    (cls,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Trainer")
    called = (node.func for node in ast.walk(cls) if isinstance(node, ast.Call))
    return {
        f.attr
        for f in called
        if isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and f.value.id == "self"
    }


CALLED = _calls_on_self()


@pytest.mark.parametrize("name", [*PRIVATE, *PUBLIC])
def test_an_overridden_method_has_the_parameters_that_it_had_and_is_still_called(name: str) -> None:
    method = getattr(Trainer, name, None)
    assert method is not None, f"Trainer.{name} is gone: {REPAIR}"
    assert list(inspect.signature(method).parameters) == (PRIVATE | PUBLIC)[name], f"Trainer.{name}: {REPAIR}"
    assert name in CALLED, f"Trainer.{name} is called no more: {REPAIR}"


def test_the_table_names_every_override() -> None:
    own = {name for name in vars(PairTrainer) if hasattr(Trainer, name) and not name.startswith("__")}
    assert own == PRIVATE.keys() | PUBLIC.keys()


def test_the_attributes_that_are_used_are_there() -> None:
    source = inspect.getsource(Trainer)
    for name in ("accelerator", "args", "control", "lr_scheduler", "optimizer", "state"):
        assert f"self.{name} = " in source or f"self.{name}, " in source or hasattr(Trainer, name), f"{name}: {REPAIR}"
    assert "self.accelerator.prepare_model(" in source, f"accelerator.prepare_model is called no more: {REPAIR}"
    assert transformers.trainer.TRAINER_STATE_NAME == "trainer_state.json", "checkpoints of before have this file"
    assert "_n_gpu" in inspect.getsource(TrainingArguments), f"TrainingArguments._n_gpu: {REPAIR}"
    assert {"should_log", "should_save", "should_evaluate", "should_training_stop"} <= vars(TrainerControl()).keys()
    assert issubclass(TrainerControl, ExportableState)
    assert {"global_step", "max_steps", "log_history"} <= vars(TrainerState()).keys()
    assert list(inspect.signature(TrainerState.compute_steps).parameters) == ["self", "args", "max_steps"], REPAIR


def test_there_is_no_other_subclass_of_trainer() -> None:
    """One file has all overrides: this table is then all that a new version can break."""
    found: list[str] = []
    for file in sorted(Path(n2kit.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf8"))):
            if isinstance(node, ast.ClassDef) and any(_name(base).endswith("Trainer") for base in node.bases):
                found.append(f"{file.name}: {node.name}")
    assert found == ["trainer.py: PairTrainer"]


def _name(node: Any) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
