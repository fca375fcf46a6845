"""The variables of the environment that n2kit reads, and a warning of those that only look like one."""

from __future__ import annotations

import os

from n2kit.contract.kinds import CHOICES
from n2kit_cli.output import say

KNOWN = ("N2KIT_API_KEY", "N2KIT_CACHE", "N2KIT_PLUGINS", "N2KIT_TRACEBACK", "N2KIT_WEIGHTS")
# The first words of settings, as `n2kit.recipe.settings.Recipe` has them; its module takes its time to import.
GROUPS = ("head", "prompt", "train")  # of settings, and none themselves
WITH_KEYS = (*CHOICES, *GROUPS)
SECTIONS = (*WITH_KEYS, "variant", "licences")


def warn_of_unread_variables() -> None:
    """Warn of variables that are called N2KIT_… and are not read: a misspelt setting would be missing in silence."""
    for name in sorted(os.environ):
        if name.startswith("N2KIT_") and not _is_read(name):
            near = _near(name)
            meant = f"did you mean {near}?" if near else "settings are N2KIT_SECTION__KEY, such as N2KIT_TRAIN__LR"
            say(f"note: the variable {name} is not read; {meant}")


def _near(name: str) -> str | None:
    """Return the variable that is meant by one that is not read: N2KIT_TRAIN__LR by N2KIT_TRAIN_LR and by N2KIT_TRIAN__LR."""
    from difflib import get_close_matches

    words = name.removeprefix("N2KIT_")
    if section := next((one for one in map(str.upper, WITH_KEYS) if words.startswith(f"{one}_")), None):
        return f"N2KIT_{section}__{words.removeprefix(section).lstrip('_') or 'KEY'}"
    first, _, key = words.partition("__")
    near = get_close_matches(first, [*(one.removeprefix("N2KIT_") for one in KNOWN), *map(str.upper, SECTIONS)], n=1)
    if not near:
        return None
    if near[0].lower() not in WITH_KEYS:
        return f"N2KIT_{near[0]}"
    key = key or "KEY" * (near[0].lower() in GROUPS)
    return f"N2KIT_{near[0]}" + f"__{key}" * bool(key)


def _is_read(name: str) -> bool:
    section = name.removeprefix("N2KIT_").partition("__")[0].lower()
    return name in KNOWN or section in SECTIONS
