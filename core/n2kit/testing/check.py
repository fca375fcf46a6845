"""Try a component's laws without pytest."""

from __future__ import annotations

from collections.abc import Iterator

from n2kit.contract.kinds import Kind
from n2kit.errors import N2kitError
from n2kit.testing.law_result import LawResult
from n2kit.testing.laws import Law, laws_of
from n2kit.testing.under_test import ComponentUnderTest, component_under_test


def check_component(kind: Kind, reference: str) -> Iterator[LawResult]:
    """Try every law of a kind on the component that `reference` names."""
    try:
        under_test = component_under_test(kind, reference)
    except N2kitError as problem:
        yield LawResult(f"{kind}/{reference}", "resolves", "failed", problem.message)
        return
    for law in laws_of(kind):
        if law.applies(under_test):
            yield try_law(law, under_test)


def try_law(law: Law, under_test: ComponentUnderTest) -> LawResult:
    """Try one law; any exception of the component is a failure, with the reason in one line."""
    declared = law.capability is None or law.capability in under_test.spec.capabilities
    waived = under_test.spec.waived.get(law.name)
    try:
        law.check(under_test)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # an exit, too
        reason = str(problem) if isinstance(problem, AssertionError) else f"{type(problem).__name__}: {problem}"
        reason = (reason.splitlines() or [""])[0]
        if waived is not None:
            return LawResult(str(under_test), law.name, "waived", f"{waived} ({reason})")
        return LawResult(str(under_test), law.name, "failed" if declared else "not declared", reason)
    if not declared:
        return LawResult(str(under_test), law.name, "hint", f"it could declare the capability {law.capability!r}")
    if waived is not None:
        return LawResult(str(under_test), law.name, "hint", f"it keeps the law {law.name}, which it waives")
    return LawResult(str(under_test), law.name, "passed")
