"""n2kit doctor."""

from __future__ import annotations

import typer

from n2kit_cli import options
from n2kit_cli.output import document, table


def doctor(json: options.Json = False) -> None:
    """Check what this machine can do, and say how to repair the rest. Exit 3 if something must be repaired.

    \b
    Examples:
      n2kit doctor
    """
    from n2kit.doctor import examine

    findings = examine()
    if json:
        document([vars(f) for f in findings])
    else:
        table(("check", "state", "found", "do"), [(f.check, f.state, f.found, f.fix or "") for f in findings])
    if any(f.state == "problem" for f in findings):
        raise typer.Exit(3)
