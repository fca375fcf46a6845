"""The plug-in contract: the hooks that a package in the entry-point group `n2kit` may implement.

A plug-in module states `N2KIT_PLUGIN_API = (2, 1)`: the version of this page that it was written for. The major number
changes when a hook changes its meaning; a plug-in of another major is listed as broken and left alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from n2kit.contract.cards import ComponentSpec

PLUGIN_API = (2, 1)
API_CHANGES = "variants are called presets now, see docs/plugins.md"  # what an author of API 1 has to do
PROJECT = "n2kit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def n2kit_register_components() -> Sequence[ComponentSpec]:  # type: ignore[empty-body]
    """Return the components that this plug-in brings. Must not import torch."""


@hookspec
def n2kit_doctor_checks() -> Sequence[tuple[str, str]]:  # type: ignore[empty-body]
    """Return lines for `n2kit doctor`: (`what`, `what was found`). Raise `n2kit.errors.Unavailable` for a problem."""


@hookspec
def n2kit_run_started(run: Mapping[str, Any]) -> None:
    """Note that a training run begins; `run` holds `folder`, `recipe` and `steps`."""


@hookspec
def n2kit_run_finished(run: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Note that a training run ended; `result` is what `n2kit train --json` prints."""


@hookspec
def n2kit_step_logged(run: Mapping[str, Any], event: Mapping[str, Any]) -> None:
    """Note a step of a training that is logged (`train.log_steps`); `event` is what `n2kit train --json` prints of it."""


@hookspec
def n2kit_validated(run: Mapping[str, Any], event: Mapping[str, Any]) -> None:
    """Note a validation of a training; `event` is what `n2kit train --json` prints of it."""


@hookspec
def n2kit_register_loggers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return loggers of trainings: name → `module:Class`, for `n2kit train --log-to NAME`.

    `Class(folder)` is made before the first step, with the run folder, and has `log(step, values)` and `end()`.
    """


@hookspec
def n2kit_register_item_readers() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return readers of item files: ending (`.sqlite`) → `module:function`.

    `function(path)` yields a mapping for each item, by column names; it raises ValueError for a file that it cannot read.
    """


@hookspec
def n2kit_register_baselines() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return baselines of `n2kit bench`: name → `module:Attr` of a `n2kit.contract.Baseline`, for `--baselines NAME`.

    That module is read before a matrix is planned, and must not import torch; the baseline's own `target` may.
    """


@hookspec
def n2kit_register_metrics() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return metrics of an evaluation: name → `module:function`, for `--metric NAME` of `n2kit eval` and `bench`, and `train.best_metric`.

    `function(ranks, owner)` gives one value a query, [Q]: ranks [P] are those of the targets, from 1; owner [P] says whose
    they are, 0 … Q-1. The metric is their mean, and its interval is a bootstrap over them. More is better.
    """


@hookspec
def n2kit_register_prompt_templates() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return prompt templates: name → `module:Attr` of a mapping with the keys of docs/prompts.md, for `--set prompt.template=NAME`."""


@hookspec
def n2kit_register_report_sections() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Return sections of bench reports: name → `module:function`.

    `function(rows)` gets the rows of `results.jsonl` as mappings, and gives a `n2kit.contract.ReportSection`, or None.
    """


@hookspec
def n2kit_shard_started(run: Mapping[str, Any], shard: Mapping[str, Any]) -> None:
    """Note that a shard of a folder of vectors begins to be computed, in the process that does it.

    `run` holds `folder` and `fingerprint` (of the model); `shard` its `number`, the number of `shards`, `items`, and its `file`.
    """


@hookspec
def n2kit_shard_finished(run: Mapping[str, Any], shard: Mapping[str, Any]) -> None:
    """Note that a shard is written; `shard` also holds `seconds`, and `skipped`: how many items have no vector."""
