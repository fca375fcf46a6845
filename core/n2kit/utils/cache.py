"""The folder of what n2kit derives and can derive again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where n2kit keeps what it derives (converted weights): `N2KIT_CACHE`, else the user's cache folder."""
    if own := os.environ.get("N2KIT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "n2kit"
