"""The folders of n2kit in a user's home: what it can derive again, and what the user has set."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_config_path


def cache_folder() -> Path:
    """Return the folder of what n2kit derives (converted weights): `N2KIT_CACHE`, else the user's cache folder.

    On Linux that is `$XDG_CACHE_HOME/n2kit`, else `~/.cache/n2kit`.
    """
    if own := os.environ.get("N2KIT_CACHE"):
        return Path(own).expanduser()
    return user_cache_path("n2kit", appauthor=False)


def config_folder() -> Path:
    """Return the folder of the user's own settings: on Linux `$XDG_CONFIG_HOME/n2kit`, else `~/.config/n2kit`."""
    return user_config_path("n2kit", appauthor=False)
