"""Help texts: commands in groups, and words for what an option takes in place of Python's types."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import typer

# The sections of `n2kit --help`, in the order of a newcomer; what is in none of them comes last.
GROUPS: dict[str, tuple[str, ...]] = {
    "Start": ("demo", "ls", "plan", "doctor"),
    "Bring your data": ("data",),
    "Make a model": ("build", "fit", "train", "merge", "pack", "hub"),
    "Use it": ("embed", "index", "neighbours", "semantic-ids", "recommend", "serve", "export", "generate"),
    "Measure it": ("eval", "neglect", "bench", "mine-negatives"),
    "Set up": ("config", "plugins", "card"),
}
OTHERS = "Of plug-ins"
WORDS: dict[Any, str] = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH", bool: "BOOLEAN"}
PLACES = {"dir": "FOLDER", "file": "FILE"}


class GroupedCommands(typer.core.TyperGroup):
    """A program whose help lists its commands in `GROUPS`."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group."""
        left = dict.fromkeys(self.list_commands(ctx))
        width = formatter.width - 6 - max(map(len, left), default=0)
        for title, names in {
            **GROUPS,
            OTHERS: tuple(n for n in left if not any(n in g for g in GROUPS.values())),
        }.items():
            commands = [(name, self.get_command(ctx, name)) for name in names if name in left]
            rows = [(name, command.get_short_help_str(width)) for name, command in commands if command is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def use_words(command: Any) -> None:
    """Let a command and those below it say TEXT, INTEGER or FOLDER where their help would say a Python type."""
    for parameter in command.params:
        about = getattr(parameter, "type_descriptor", None)
        if parameter.metavar is not None or about is None or getattr(parameter, "is_flag", False):
            continue
        if parameter.param_type_name == "argument":
            parameter.metavar = str(parameter.name).upper()
            parameter.display_type = lambda _: ""  # the name says it
        elif not about.is_choice:
            parameter.metavar = PLACES.get(about.path_type or "", "PATH") if about.is_path else _word(about.annotation)
    for below in getattr(command, "commands", {}).values():
        use_words(below)


def _word(annotation: Any) -> str:
    """Name what a type takes: a list's its element, of a tuple each."""
    inner = get_args(annotation)
    return " ".join(map(_word, inner)) if inner else WORDS.get(annotation, "TEXT")
