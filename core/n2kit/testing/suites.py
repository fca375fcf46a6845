"""The laws as pytest classes to inherit, and as a parametrisation over components."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from n2kit.contract.kinds import KINDS, Kind
from n2kit.errors import Unavailable
from n2kit.plugins.catalogue import default_catalogue
from n2kit.plugins.manager import OWN, require
from n2kit.testing.laws import Law, laws_of
from n2kit.testing.references import references

if TYPE_CHECKING:
    from n2kit.testing.under_test import ComponentUnderTest


class CapabilityHint(UserWarning):
    """The warning that a component keeps a capability's law without declaring the capability."""


class Suite:
    """A class of tests, one a law. Name the component that they are for: `component = "hello:tiny"`.

    `partners = {"vision": "siglip:tiny"}` are settings of the model that it is joined in, over those of its spec.
    """

    kind: ClassVar[Kind]
    component: ClassVar[str]
    partners: ClassVar[Mapping[str, Any]] = {}

    @pytest.fixture
    def under_test(self) -> ComponentUnderTest:
        import torch

        from n2kit.testing.under_test import component_under_test

        torch.set_num_threads(1)  # tiny models: threads cost more than they give
        return component_under_test(self.kind, self.component).beside(self.partners)


def suite(kind: Kind, component: str) -> type[Suite]:
    """Make a suite for a component: `class TestHello(suite("vision", "hello:tiny")): ...`, or just `TestHello = suite(…)`."""
    return type(f"{kind.capitalize()}Suite", (SUITES[kind],), {"component": component})


def assert_law(law: Law, under_test: ComponentUnderTest) -> None:
    """Assert that a component keeps a law, as a test: skipped where it is waived, or of a capability that is neither declared nor there."""
    if (reason := under_test.spec.waived.get(law.name)) is not None:
        pytest.skip(f"{law.name} is waived: {reason}")
    if law.of is not None and not law.applies(under_test):
        pytest.skip(f"a law of each {law.of.__name__}, which {under_test} is not")
    if law.capability is None or law.capability in under_test.spec.capabilities:
        law.check(under_test)
        return
    try:
        law.check(under_test)
    except Exception as problem:
        pytest.skip(f"capability {law.capability} is not declared: {problem}")
    warnings.warn(f"{under_test} could declare the capability {law.capability!r}", CapabilityHint, stacklevel=2)


def parametrize_components(
    *kinds: Kind, distribution: str = OWN, laws: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Parametrise a test over the components of a distribution: `component` is `(kind, reference)`; ids work with -k.

    Backbones are taken at each `tiny…` preset, other parts at `tiny` or their defaults. With `laws`, the test has a second
    argument `law` and runs for each law of each component: `assert_law(law, component_under_test(*component))`. A component of an
    extra that is not installed is skipped.
    """
    found = [(kind, reference) for kind in kinds or KINDS for reference in references(kind, distribution)]
    marks = {case: _of_missing_extra(*case) for case in found}
    if not laws:
        one = [pytest.param(case, id="/".join(case), marks=marks[case]) for case in found]
        return pytest.mark.parametrize("component", one)
    both = [
        pytest.param(case, law, id=f"{'/'.join(case)}-{law.name}", marks=marks[case])
        for case in found
        for law in laws_of(case[0])
    ]
    return pytest.mark.parametrize(("component", "law"), both)


def _of_missing_extra(kind: Kind, reference: str) -> tuple[pytest.MarkDecorator, ...]:
    """Mark the tests of a component whose extra is not installed as skipped, with the reason."""
    registered = default_catalogue().resolve(kind, reference).registered
    if registered.spec.extra is None:
        return ()
    try:
        require(registered.spec, registered.distribution)
    except Unavailable as missing:
        return (pytest.mark.skip(reason=missing.message),)
    return ()


def _tests(kind: Kind) -> dict[str, Any]:
    def test_of(law: Law) -> Callable[..., None]:
        def test(self: Suite, under_test: ComponentUnderTest) -> None:
            assert_law(law, under_test)

        test.__doc__ = law.check.__doc__
        return test

    return {"kind": kind, **{f"test_{law.name}": test_of(law) for law in laws_of(kind)}}


SUITES: dict[Kind, type[Suite]] = {kind: type(f"{kind.capitalize()}Suite", (Suite,), _tests(kind)) for kind in KINDS}
VisionSuite, LLMSuite, MLLMSuite = SUITES["vision"], SUITES["llm"], SUITES["mllm"]
ConnectorSuite, FusionSuite, LossSuite, IndexSuite = (SUITES[k] for k in ("connector", "fusion", "loss", "index"))
