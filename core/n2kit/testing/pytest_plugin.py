"""The pytest plug-in: it prints the version under test, and lists hints at the end. Imports nothing heavy."""

from __future__ import annotations

import pytest

from n2kit.utils.version import VERSION

HINT = "could declare the capability"


def pytest_report_header(config: pytest.Config) -> str:
    return f"n2kit {VERSION}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests recorded as property `n2kit` (from worker processes too), and undeclared capabilities."""
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, text in getattr(report, "user_properties", []):
            if name == "n2kit" and report.when == "call":
                terminalreporter.section("n2kit")
                terminalreporter.write_line(text)
    warned = terminalreporter.stats.get("warnings", [])
    hints = sorted({line.strip() for w in warned for line in str(w.message).splitlines() if HINT in line})
    if hints:
        terminalreporter.section("n2kit hints")
        for hint in hints:
            terminalreporter.write_line(hint.rpartition("CapabilityHint: ")[2])
