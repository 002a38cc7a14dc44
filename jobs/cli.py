"""The command line of all jobs: parsing, help, and how errors reach the user.

`run` is for jobs that take a recipe, `run_plain` for those with a few other settings.
"""

import difflib
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from offsft.config.loading import describe, load
from offsft.errors import ConfigError, OffsftError
from offsft.runtime import shutdown
from offsft.runtime.auth import bring_token

from .submission import with_lasting_run

if TYPE_CHECKING:
    from offsft.config import Recipe
    from offsft.runtime.console import Console

_WIDTH = 110
_RECIPES = Path(__file__).with_name("recipes")

Work = Callable[["Recipe", "Console"], None]
"""A job's work; it imports slow modules only when it is called."""
PlainWork = Callable[[Path | None, dict[str, str]], None]
"""The work of a job without a recipe, given the path and the settings of its command line."""
StdoutWork = Callable[[Path | None, list[str]], None]
"""The work of a job that prints its result, given the path and the `key=value` arguments of its command line."""
Shortened = Callable[[Path | None, list[str]], list[str]]
"""Expands a job's short forms: from the recipe's path and the key=value arguments to full settings."""


def run_pipeline(stages: Sequence[str], documentation: str, *, short: "Shortened | None" = None) -> NoReturn:
    """Run a job that consists of these stages of the method; see `run`."""

    def work(recipe: "Recipe", console: "Console") -> None:
        from offsft.pipeline.run import run_stages

        run_stages(recipe, stages, console)

    run(work, documentation, short=short)


def run(work: Work, documentation: str, *, short: "Shortened | None" = None) -> NoReturn:
    """Parse the command line, do the work, exit: 0 done, 1 failed, 2 wrong settings, 130 or 143 stopped by a signal."""
    arguments = sys.argv[1:]
    _answer_help(arguments, lambda: help_text(documentation))
    try:
        text, overrides = split_arguments(arguments)
        path = None if text is None else find_recipe(text)
        recipe = with_lasting_run(load(path, short(path, overrides) if short else overrides))
    except ConfigError as error:
        _fail(error)

    # Slow imports only now, so that help and wrong settings are answered at once.
    from offsft.runtime.console import Console, put_output

    console = Console()
    bring_token()
    shutdown.listen()
    try:
        status = _status(
            lambda: work(recipe, console),
            console.say,
            log=lambda: console.log,
            stopped="stopped; the same command continues from here",
        )
    finally:
        put_output()
    sys.exit(status)


def run_plain(work: PlainWork, documentation: str, known: Sequence[str]) -> NoReturn:
    """As `run`, for a job without a recipe: at most one path, and `key=value` with one of the known keys."""
    arguments = sys.argv[1:]
    _answer_help(arguments, documentation.strip)
    try:
        text, overrides = split_arguments(arguments)
        settings = dict(override.split("=", 1) for override in overrides)
        for key in settings:
            if key not in known:
                raise ConfigError(f"{key}={settings[key]}: there is no such setting; {_suggest(key, known)}")
    except ConfigError as error:
        _fail(error)
    bring_token()
    path = None if text is None else Path(text)
    sys.exit(_status(lambda: work(path, settings), _say_on_stderr))


def run_on_stdout(work: StdoutWork, documentation: str) -> NoReturn:
    """As `run`, for a job that prints its result: it reads its settings itself, and errors go to stderr."""
    arguments = sys.argv[1:]
    _answer_help(arguments, lambda: help_text(documentation))
    try:
        text, overrides = split_arguments(arguments)
    except ConfigError as error:
        _fail(error)
    path = None if text is None else Path(text)
    sys.exit(_status(lambda: work(path, overrides), _say_on_stderr))


def _say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _status(
    work: Callable[[], None],
    say: Callable[[str], None],
    *,
    log: Callable[[], object] = lambda: None,
    stopped: str | None = None,
) -> int:
    """Do the work, report its end, return the exit status. `log` says where the output goes by then, if anywhere."""
    # DeepSpeed's import warns of a missing GPU, also where a job is to run on CPUs or only asks about others' machines.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.filename != "real_accelerator.py")
    try:
        work()
    except OffsftError as error:
        if log():  # the user sees one line; the traceback is in the log
            traceback.print_exc()
        say(f"error: {error}")
        return _status_of(error)
    except KeyboardInterrupt:
        if stopped:
            say(stopped)
        return shutdown.exit_status()
    except Exception as error:  # the last line of defence: name it, keep the traceback in the log
        from offsft.storage.faults import disk_full, storage_fault

        traceback.print_exc()
        if told := disk_full(error) or storage_fault(error):
            say(f"error: {told}")
            return 1
        where = f"; the full traceback is in {log()}" if log() else ""
        reason = (str(error).strip().splitlines() or ["no message"])[-1]
        say(f"error: {type(error).__name__}: {reason}{where}")
        return 1
    return 0


def _status_of(error: OffsftError) -> int:
    return 2 if isinstance(error, ConfigError) else 1


def _as_lines(error: OffsftError) -> str:
    return "\n".join(f"error: {line}" for line in str(error).splitlines())


def _fail(error: OffsftError) -> NoReturn:
    print(_as_lines(error), file=sys.stderr)
    sys.exit(_status_of(error))


def _answer_help(arguments: list[str], text: Callable[[], str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print_help(text())
        sys.exit(0)


def split_arguments(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Split a job's arguments into the path, if there is one, and the `key=value` ones.

    Raises:
        ConfigError: there is an option, or more than one path.
    """
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"{argument}: there are no options but --help; settings are given as key=value")
    paths = [argument for argument in arguments if _is_path(argument)]
    if len(paths) > 1:
        raise ConfigError(f"more than one file: {', '.join(paths)}; settings are given as key=value")
    return (paths[0] if paths else None), [argument for argument in arguments if argument not in paths]


def _is_path(argument: str) -> bool:
    """Whether an argument is a path, even with a `=`: no key has a slash, and an existing YAML file is meant."""
    key, equals, _ = argument.partition("=")
    return not equals or "/" in key or (argument.endswith((".yaml", ".yml")) and Path(argument).is_file())


def _suggest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"


def print_help(text: str) -> None:
    """Print the text with the command as it is typed here: `offsft rewrite` if offsft is installed."""
    text = text if __package__ == "jobs" else text.replace("python -m jobs.", "offsft ")
    try:
        print(text, flush=True)
    except BrokenPipeError:  # its reader, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def recipe_names() -> list[str]:
    """Names of the recipes that come with offsft."""
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


def find_recipe(text: str) -> Path:
    """The recipe at a path, or the one with that name that comes with offsft.

    Raises:
        ConfigError: a bare name that is neither.
    """
    path = Path(text)
    if path.exists() or path.name != text or path.suffix in (".yaml", ".yml"):
        return path
    if text not in recipe_names():
        hint = _suggest(text, recipe_names())
        raise ConfigError(f"{text}: no recipe of this name comes with offsft; {hint}, or give a path")
    return _RECIPES / f"{text}.yaml"


def help_text(documentation: str) -> str:
    """The job's docstring, and every setting with type, default and meaning."""
    lines = [documentation.strip(), "", "Settings (in the recipe as YAML, or as key=value on the command line):", ""]
    for key, kind, default, meaning in describe():
        lines.append(f"  {key}  ({kind}; {'required' if default == 'required' else 'default ' + default})")
        lines += textwrap.wrap(meaning, _WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)
