"""The names that a plug-in may import: interfaces, cards, hooks, and a few helpers.

    from n2kit.contract import ComponentSpec, VisionCard, VisionEncoder, VisionOut, hookimpl

A plug-in imports this, `n2kit.errors` and `n2kit.testing`, and nothing else of n2kit. Names are imported when they are first
used: a module that names cards and hooks alone loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from n2kit.utils.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from n2kit.contract.baseline import Baseline as Baseline
    from n2kit.contract.baseline import BaselineInputs as BaselineInputs
    from n2kit.contract.card_probe import cached_card as cached_card
    from n2kit.contract.card_probe import measure_card as measure_card
    from n2kit.contract.card_probe import non_finite_weight as non_finite_weight
    from n2kit.contract.cards import ComponentSpec as ComponentSpec
    from n2kit.contract.cards import ConnectorCard as ConnectorCard
    from n2kit.contract.cards import FusionCard as FusionCard
    from n2kit.contract.cards import LLMCard as LLMCard
    from n2kit.contract.cards import MLLMCard as MLLMCard
    from n2kit.contract.cards import Preset as Preset
    from n2kit.contract.cards import VisionCard as VisionCard
    from n2kit.contract.hookspecs import PLUGIN_API as PLUGIN_API
    from n2kit.contract.hookspecs import hookimpl as hookimpl
    from n2kit.contract.image_transform import Fit as Fit
    from n2kit.contract.image_transform import ImageTransform as ImageTransform
    from n2kit.contract.index import Index as Index
    from n2kit.contract.interfaces import LLM as LLM
    from n2kit.contract.interfaces import MLLM as MLLM
    from n2kit.contract.interfaces import Connector as Connector
    from n2kit.contract.interfaces import DecomposedMLLM as DecomposedMLLM
    from n2kit.contract.interfaces import Fusion as Fusion
    from n2kit.contract.interfaces import LoadSpec as LoadSpec
    from n2kit.contract.interfaces import Loss as Loss
    from n2kit.contract.interfaces import LossOut as LossOut
    from n2kit.contract.interfaces import Part as Part
    from n2kit.contract.interfaces import RandomInitPart as RandomInitPart
    from n2kit.contract.interfaces import VisionEncoder as VisionEncoder
    from n2kit.contract.interfaces import VisionOut as VisionOut
    from n2kit.contract.kinds import KIND_SPECS as KIND_SPECS
    from n2kit.contract.kinds import Kind as Kind
    from n2kit.contract.kinds import KindSpec as KindSpec
    from n2kit.contract.report_section import ReportSection as ReportSection
    from n2kit.contract.store import AllOf as AllOf
    from n2kit.contract.store import AnyOf as AnyOf
    from n2kit.contract.store import Comparison as Comparison
    from n2kit.contract.store import Condition as Condition
    from n2kit.contract.store import Negation as Negation
    from n2kit.contract.store import Store as Store
    from n2kit.plugins.catalogue import resolve_component as resolve_component
    from n2kit.plugins.component import Component as Component
    from n2kit.recipe.prompt_templates import TEMPLATES as TEMPLATES
    from n2kit.utils.cache import cache_folder as cache_folder
    from n2kit.utils.contexts import eval_mode as eval_mode
    from n2kit.utils.contexts import one_thread_if_small as one_thread_if_small
    from n2kit.utils.files import read_json as read_json

_HOMES = {
    "n2kit.contract.baseline": "Baseline BaselineInputs",
    "n2kit.contract.card_probe": "cached_card measure_card non_finite_weight",
    "n2kit.contract.cards": "ComponentSpec ConnectorCard FusionCard LLMCard MLLMCard Preset VisionCard",
    "n2kit.contract.hookspecs": "PLUGIN_API hookimpl",
    "n2kit.contract.image_transform": "Fit ImageTransform",
    "n2kit.contract.index": "Index",
    "n2kit.contract.interfaces": (
        "LLM MLLM Connector Fusion DecomposedMLLM Loss LossOut RandomInitPart LoadSpec Part VisionEncoder VisionOut"
    ),
    "n2kit.contract.kinds": "KIND_SPECS Kind KindSpec",
    "n2kit.contract.report_section": "ReportSection",
    "n2kit.contract.store": "AllOf AnyOf Comparison Condition Negation Store",
    "n2kit.plugins.catalogue": "resolve_component",
    "n2kit.plugins.component": "Component",
    "n2kit.recipe.prompt_templates": "TEMPLATES",
    "n2kit.utils.cache": "cache_folder",
    "n2kit.utils.contexts": "eval_mode one_thread_if_small",
    "n2kit.utils.files": "read_json",
}
__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
