"""Times as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Write seconds as 2.3 s, 40 s, 12 min or 3.5 h."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
