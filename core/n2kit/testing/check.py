"""Try a component's laws without pytest."""

from __future__ import annotations

from collections.abc import Iterator

from n2kit.contract.cards import Kind
from n2kit.errors import N2kitError
from n2kit.testing.finding import Finding
from n2kit.testing.laws import Law, laws_of
from n2kit.testing.subjects import Subject, subject_of


def check_component(kind: Kind, reference: str) -> Iterator[Finding]:
    """Try every law of a kind on the component that `reference` names."""
    try:
        subject = subject_of(kind, reference)
    except N2kitError as problem:
        yield Finding(f"{kind}/{reference}", "resolves", "failed", problem.message)
        return
    for law in laws_of(kind):
        yield try_law(law, subject)


def try_law(law: Law, subject: Subject) -> Finding:
    """Try one law; whatever a component raises is its failure, with the reason in one line."""
    declared = law.capability is None or law.capability in subject.spec.capabilities
    try:
        law.check(subject)
    except Exception as problem:
        reason = str(problem) if isinstance(problem, AssertionError) else f"{type(problem).__name__}: {problem}"
        reason = (reason.splitlines() or [""])[0]
        return Finding(str(subject), law.name, "failed" if declared else "not declared", reason)
    if not declared:
        return Finding(str(subject), law.name, "hint", f"it could declare the capability {law.capability!r}")
    return Finding(str(subject), law.name, "passed")
