"""The folders of n2kit in a user's home: what it can derive again, and what the user has set."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_config_path


def cache_folder() -> Path:
    """Return the folder of what n2kit derives (converted weights): `N2KIT_CACHE`, else `n2kit` in the user's cache folder.

    That is `$XDG_CACHE_HOME` where it is set, else the system's: on Linux `~/.cache`.
    """
    if own := os.environ.get("N2KIT_CACHE"):
        return Path(own).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):  # on every system; platformdirs obeys it on some
        return Path(xdg) / "n2kit"
    return user_cache_path("n2kit", appauthor=False)


def config_folder() -> Path:
    """Return the folder of the user's own settings: `n2kit` in `$XDG_CONFIG_HOME` or `~/.config`, else in the system's place."""
    if xdg := os.environ.get("XDG_CONFIG_HOME"):
        return Path(xdg) / "n2kit"
    earlier = Path.home() / ".config" / "n2kit"  # on every system, in versions before
    return earlier if earlier.is_dir() else user_config_path("n2kit", appauthor=False)
