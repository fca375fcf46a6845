"""docs/training.md says of every setting of a training when to use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from n2kit.recipe.settings import Train

PAGE = (Path(__file__).parents[1] / "docs" / "training.md").read_text("utf8")
FLAGS = {"epochs": "--epochs", "max_steps": "--max-steps", "batch_size": "--batch-size", "seed": "--seed", "loggers": "--log-to",
         "lr": "--lr", "new_lr": "--lr", "lrs": "--lr"}  # fmt: skip


@pytest.mark.parametrize("setting", Train.model_fields)
def test_every_setting_is_explained(setting: str) -> None:
    assert f"`train.{setting}" in PAGE or f"train.{setting}=" in PAGE or f"`{FLAGS.get(setting, '?')} " in PAGE
