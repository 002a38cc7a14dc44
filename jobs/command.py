"""What all jobs share: the command line, its help, and how errors reach the user."""

import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from offsft import stopping
from offsft.disk_full import disk_full
from offsft.errors import ConfigError, OffsftError
from offsft.ray_token import bring_token
from offsft.recipes import describe, load
from offsft.submitted import with_lasting_run

if TYPE_CHECKING:
    from offsft.config import Recipe
    from offsft.console import Console

_WIDTH = 110


Work = Callable[["Recipe", "Console"], None]
"""What a job does; it imports what is slow only when it is called."""
Shortened = Callable[[Path | None, list[str]], list[str]]
"""From the recipe's path and the key=value arguments of a job that has short forms to full settings."""


def run_pipeline(stages: Sequence[str], documentation: str, *, short: "Shortened | None" = None) -> NoReturn:
    """A job that runs these stages of the method; see `run`."""

    def work(recipe: "Recipe", console: "Console") -> None:
        from offsft.pipeline import run_stages

        run_stages(recipe, stages, console)

    run(work, documentation, short=short)


def run(work: Work, documentation: str, *, short: "Shortened | None" = None) -> NoReturn:
    """Parse the command line, do the work, exit: 0 done, 1 failed, 2 wrong settings, 130 or 143 stopped by a signal."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(help_text(documentation))
        sys.exit(0)
    try:
        path, overrides = _split(arguments)
        recipe = with_lasting_run(load(path, short(path, overrides) if short else overrides))
    except ConfigError as error:
        _fail(str(error), 2)

    # Slow imports only now: help and wrong settings are answered at once.
    from offsft.console import Console, put_output

    console = Console()
    bring_token()
    stopping.listen()
    try:
        status = _status(work, recipe, console)
    finally:
        put_output()
    sys.exit(status)


def _status(work: Work, recipe: "Recipe", console: "Console") -> int:
    """Do the work and say how it ended; the status to exit with."""
    from offsft.storage_fault import storage_fault

    try:
        work(recipe, console)
    except OffsftError as error:
        if console.log:  # output goes there by now, and the traceback with it
            traceback.print_exc()
        console.say(f"error: {error}")
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        console.say("stopped; the same command continues from here")
        return stopping.exit_status()
    except Exception as error:  # the last line of defence: name it, keep the traceback in the log
        traceback.print_exc()
        if told := disk_full(error) or storage_fault(error):
            console.say(f"error: {told}")
            return 1
        where = f"; the whole story is in {console.log}" if console.log else ""
        reason = (str(error).strip().splitlines() or ["no message"])[-1]
        console.say(f"error: {type(error).__name__}: {reason}{where}")
        return 1
    return 0


def help_text(documentation: str) -> str:
    """The job's documentation and every setting with type, default and meaning."""
    lines = [documentation.strip(), "", "Settings (in the recipe as YAML, or as key=value on the command line):", ""]
    for key, kind, default, meaning in describe():
        lines.append(f"  {key}  ({kind}; {'required' if default == 'required' else 'default ' + default})")
        lines += textwrap.wrap(meaning, _WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def _split(arguments: list[str]) -> tuple[Path | None, list[str]]:
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"{argument}: there are no options but --help; settings are given as key=value")
    paths = [argument for argument in arguments if "=" not in argument]
    if len(paths) > 1:
        raise ConfigError(f"more than one recipe: {', '.join(paths)}; settings are given as key=value")
    return (Path(paths[0]) if paths else None), [argument for argument in arguments if "=" in argument]


def _fail(message: str, status: int) -> NoReturn:
    print("\n".join(f"error: {line}" for line in message.splitlines()), file=sys.stderr)
    sys.exit(status)
