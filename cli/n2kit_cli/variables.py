"""The variables of the environment that n2kit reads, and a warning of those that only look like one."""

from __future__ import annotations

import os

from n2kit.contract.kinds import CHOICES
from n2kit_cli.output import say

KNOWN = ("N2KIT_API_KEY", "N2KIT_CACHE", "N2KIT_PLUGINS", "N2KIT_TRACEBACK", "N2KIT_WEIGHTS")
# The first words of settings, as `n2kit.recipe.settings.Recipe` has them; its module takes its time to import.
SECTIONS = (*CHOICES, "variant", "licences", "head", "prompt", "train")


def warn_of_unread_variables() -> None:
    """Warn of variables that are called N2KIT_… and are not read: a misspelt setting would be missing in silence."""
    for name in sorted(os.environ):
        if name.startswith("N2KIT_") and not _is_read(name):
            from difflib import get_close_matches

            settings = [f"N2KIT_{section.upper()}" for section in SECTIONS]
            near = get_close_matches(name.partition("__")[0], [*KNOWN, *settings], n=1)
            meant = f"did you mean {near[0]}?" if near else "settings are N2KIT_TRAIN__LR and the like"
            say(f"note: the variable {name} is not read; {meant}")


def _is_read(name: str) -> bool:
    section = name.removeprefix("N2KIT_").partition("__")[0].lower()
    return name in KNOWN or section in SECTIONS
