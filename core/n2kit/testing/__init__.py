"""The conformance kit: the laws that every component keeps, ours and yours, as tests to inherit.

    from n2kit.testing import VisionSuite

    class TestHello(VisionSuite):
        component = "hello:tiny"

`n2kit plugins check DISTRIBUTION` tries the same laws without pytest; docs/plugins.md tells the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from n2kit.utils.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from n2kit.testing.check import check_component as check_component
    from n2kit.testing.laws import Law as Law
    from n2kit.testing.laws import law as law
    from n2kit.testing.laws import laws_of as laws_of
    from n2kit.testing.suites import ConnectorSuite as ConnectorSuite
    from n2kit.testing.suites import FusionSuite as FusionSuite
    from n2kit.testing.suites import IndexSuite as IndexSuite
    from n2kit.testing.suites import LLMSuite as LLMSuite
    from n2kit.testing.suites import LossSuite as LossSuite
    from n2kit.testing.suites import MLLMSuite as MLLMSuite
    from n2kit.testing.suites import VisionSuite as VisionSuite
    from n2kit.testing.suites import parametrize_components as parametrize_components
    from n2kit.testing.suites import suite as suite
    from n2kit.testing.under_test import ComponentUnderTest as ComponentUnderTest
    from n2kit.testing.under_test import component_under_test as component_under_test

_HOMES = {
    "n2kit.testing.check": "check_component",
    "n2kit.testing.laws": "Law law laws_of",
    "n2kit.testing.under_test": "ComponentUnderTest component_under_test",
    "n2kit.testing.suites": (
        "ConnectorSuite FusionSuite IndexSuite LLMSuite LossSuite MLLMSuite VisionSuite parametrize_components suite"
    ),
}
__all__, __getattr__, __dir__ = lazy_exports(__name__, _HOMES)  # pyright: ignore[reportUnsupportedDunderAll]
