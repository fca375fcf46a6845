"""The `n2kit` program: commands, errors, exit codes."""

from __future__ import annotations

import errno
import io
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer

from n2kit import __version__
from n2kit.errors import BadInput, N2kitError, Unavailable
from n2kit.utils.collector import leave_all_at_exit
from n2kit.utils.signals import signal_handlers
from n2kit_cli.commands import COMMANDS, add_commands, add_summaries
from n2kit_cli.contained import name_waiting_threads, plugins_contained
from n2kit_cli.help_text import GroupedCommands, use_words
from n2kit_cli.output import error, only_first_process, print_nowhere, say
from n2kit_cli.stdout import keep_stdout, stdout_for_data
from n2kit_cli.variables import warn_of_unread_variables

COMMANDS_GROUP = "n2kit.commands"  # of plug-ins: NAME = "module:typer_app"
BAD_INPUT, CANNOT, BUG, INTERRUPTED = 2, 3, 4, 130


def _version(show: bool) -> None:
    if show:
        print(__version__)
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    disable: Annotated[
        list[str] | None,
        typer.Option(
            "--disable-plugin", help="Leave a plug-in out, by name or distribution; repeatable. Or N2KIT_PLUGINS=-NAME."
        ),
    ] = None,
) -> None:
    """Join any language model with any vision encoder into one item embedding model."""
    if disable:  # by the environment, so that it holds in child processes too
        from n2kit.plugins.manager import disable as disable_plugins

        disable_plugins(disable)


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Make the program with these commands."""
    made = typer.Typer(
        name="n2kit",
        cls=GroupedCommands,
        help="Join any language model with any vision encoder into one item embedding model.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(root)
    add_commands(made, names)
    return made


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this: what is printed goes to no one
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without → still shows the rest
    leave_all_at_exit()
    code = _flushed(run(sys.argv[1:] if arguments is None else arguments))
    # All is done: Ctrl-C while threads are waited for, or libraries clean up, is no traceback of theirs.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    name_waiting_threads()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; every failure becomes an exit code and at most a few lines on stderr."""
    try:
        with only_first_process(), signal_handlers(_stop, signal.SIGTERM), plugins_contained():
            warn_of_unread_variables()
            _refuse_undecodable(arguments)
            code = _program(arguments).main(arguments, prog_name="n2kit", standalone_mode=False)
        if code == INTERRUPTED:
            return _interrupted(arguments)
        return code if isinstance(code, int) else 0
    except N2kitError as problem:
        error(problem.message, problem.hint)
        return problem.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    except BrokenPipeError:
        return _reader_gone()
    except typer.exceptions.TyperException as problem:
        return _usage(problem)
    except BaseException as problem:
        return _unexpected(problem)


def _unexpected(problem: BaseException) -> int:
    """Report what no part of n2kit has foreseen: a plug-in's fault, then the machine's, then n2kit's own."""
    from n2kit.plugins.blame import blame, lacks_memory

    if isinstance(problem, SystemExit) and isinstance(problem.__context__, BrokenPipeError):  # typer's way, and rich's
        return _reader_gone()
    if (theirs := blame(problem)) is not None:
        _show_traceback(problem)
        error(theirs.message, theirs.hint)
        return theirs.exit_code
    if isinstance(problem, OSError):
        return _system(problem)
    if isinstance(problem, UnicodeEncodeError) and problem.reason == "surrogates not allowed":
        error(f"a name is no UTF-8: {ascii(problem.object)[:200]}", "rename the file, or the folder that it is in")
        return BAD_INPUT
    if lacks_memory(problem):
        return _no_memory(problem)
    if isinstance(problem, SystemExit):
        raise problem
    return _bug(problem)


def _refuse_undecodable(arguments: list[str]) -> None:
    """Refuse a name that is no UTF-8, which JSON and Parquet cannot hold, before any work.

    Raises:
        BadInput: there is one.
    """
    for word in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise BadInput(f"{word} is no UTF-8", "rename the file, or the folder that it is in")


def _stop(*_: object) -> None:
    """Take SIGTERM as Ctrl-C: what is done is kept, and the command that goes on is printed."""
    raise KeyboardInterrupt


def _flushed(code: int) -> int:
    """Flush stdout and return the exit code; a reader that has gone changes nothing about it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        print_nowhere()
    except OSError as problem:
        print_nowhere()
        return code or _system(problem)
    return code


def _reader_gone() -> int:
    """Return 0 for `n2kit ls | head`: that the reader has gone is no error."""
    print_nowhere()
    return 0


def _interrupted(arguments: list[str]) -> int:
    """Print the command that goes on, with the variables that set something, and the launcher if there was one."""
    settings = [f"{k}={shlex.quote(v)}" for k, v in sorted(os.environ.items()) if k.startswith("N2KIT_")]
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    torchrun = f"torchrun --nproc-per-node {processes} -m n2kit_cli.main"
    program = "n2kit" if processes == "1" else torchrun
    say(f"interrupted; to go on: {' '.join([*settings, program, shlex.join(arguments)])}")
    return INTERRUPTED


def _system(problem: OSError) -> int:
    """Report a file that cannot be read or written, or a full disk; what was written before is kept."""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        error(f"{problem.filename or 'writing'}: {problem.strerror}", "free some space; the same command goes on")
        return CANNOT
    if problem.filename is None:
        return _bug(problem)
    error(f"{problem.filename}: {problem.strerror}", "check the path and its permissions")
    return BAD_INPUT


def _no_memory(problem: BaseException) -> int:
    what = str(problem).partition("\n")[0]
    error(
        f"not enough memory{f': {what}' if what else ''}",
        "a smaller --batch-size, smaller models, or a machine with more; n2kit plan says what a training takes",
    )
    return CANNOT


def _usage(problem: Exception) -> int:
    command = getattr(getattr(problem, "ctx", None), "command_path", None)
    message = problem.format_message() if hasattr(problem, "format_message") else str(problem)
    if not message:  # a group without a command has shown its help
        return BAD_INPUT
    error(message.rstrip("."), f"{command or 'n2kit'} --help")
    return BAD_INPUT


def _show_traceback(problem: BaseException) -> None:
    if "N2KIT_TRACEBACK" in os.environ:
        traceback.print_exception(problem)


def _bug(problem: BaseException) -> int:
    _show_traceback(problem)
    error(
        f"a bug in n2kit: {type(problem).__name__}: {problem}".splitlines()[0],
        "N2KIT_TRACEBACK=1 shows where; please report it",
    )
    return BUG


def _program(arguments: list[str]) -> Any:
    """Build the program; with a plug-in's command (group `n2kit.commands`) if it is called, and all their names in the help.

    Raises:
        Unavailable: the plug-in's command cannot be imported.
    """
    first, left_out = _called(arguments)
    completes = "_N2KIT_COMPLETE" in os.environ  # a shell asks for the options of any command
    if first in COMMANDS and not completes:
        return _command(make_app([first]))
    helps = first in ("--help", "-h") and not completes
    program: Any = _command(make_app([] if helps else COMMANDS))
    if helps:
        add_summaries(program)
    named = [point for point in entry_points(group=COMMANDS_GROUP) if helps or point.name == first]
    usable = [point for point in named if not _is_disabled(point, left_out)]
    if helps:
        for point in usable:  # named, and not imported: their own help says more
            listed = typer.core.TyperCommand(point.name, help=f"Of the plug-in {_owner(point)}.")
            program.add_command(program.commands.get(point.name, listed))
    elif usable:
        program.add_command(_loaded(usable), first)
    elif named:
        hint = "leave out --disable-plugin or N2KIT_PLUGINS"
        raise Unavailable(f"the command {first} of the plug-in {_owner(named[0])} is disabled", hint)
    return program


def _loaded(points: list[EntryPoint]) -> Any:
    """Import the command of a plug-in.

    Raises:
        BadInput: two packages provide it. Unavailable: it cannot be imported.
    """
    name, owners = points[0].name, sorted({_owner(point) for point in points})
    if len(owners) > 1:
        message = f"the command {name!r} is provided by two installed packages: {' and '.join(owners)}"
        raise BadInput(message, f"n2kit --disable-plugin {owners[1]} {name} …")
    try:
        with stdout_for_data():
            app = points[0].load()
        return typer.main.get_group(app)
    except (Exception, SystemExit) as problem:
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        hint = f"n2kit plugins check {owners[0]}"
        raise Unavailable(f"the command {name} of the plug-in {owners[0]} is broken: {reason}", hint) from problem


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "a plug-in"


def _called(arguments: list[str]) -> tuple[str, list[str]]:
    """Find the word that a command line calls, behind the program's own options, and the plug-ins that it leaves out."""
    words, left_out = iter(arguments), []
    for word in words:
        option, equals, value = word.partition("=")
        if option == "--disable-plugin":
            left_out += (value if equals else next(words, "")).split(",")
        else:
            return word, left_out
    return "--help", left_out


def _is_disabled(point: EntryPoint, left_out: list[str]) -> bool:
    from n2kit.plugins.manager import Plugin, Selection

    plugin = Plugin(point.name, _owner(point), "", point.value)
    return not Selection.read().includes(plugin) or bool(
        {plugin.name, plugin.distribution, plugin.qualified} & set(left_out)
    )


def _command(app: typer.Typer) -> Any:
    command = typer.main.get_command(app)
    use_words(command)
    keep_stdout(command)
    return command


if __name__ == "__main__":
    main()
