"""Every component in this repository keeps every law of the kit that plug-in authors run; nothing weaker tests them."""

from __future__ import annotations

import pytest

from n2kit.contract.kinds import KINDS, Kind
from n2kit.testing import Law, component_under_test, parametrize_components
from n2kit.testing.references import references
from n2kit.testing.suites import assert_law


@pytest.mark.filterwarnings("error::n2kit.testing.suites.CapabilityHint")
@parametrize_components(laws=True)
def test_law(component: tuple[Kind, str], law: Law) -> None:
    assert_law(law, component_under_test(*component))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_components(kind: Kind) -> None:
    assert references(kind, "n2kit")
