"""The command line of the jobs that take no recipe."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from offsft import stopping
from offsft.errors import ConfigError, OffsftError
from offsft.ray_token import bring_token


def parsed(arguments: list[str], documentation: str, known: set[str]) -> tuple[list[Path], dict[str, str]]:
    """At most one path, and `key=value` with known keys; --help and mistakes end the process."""
    if {"-h", "--help"} & set(arguments):
        print(documentation.strip())
        sys.exit(0)
    paths = [Path(argument) for argument in arguments if "=" not in argument]
    settings = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    unknown = [str(path) for path in paths if str(path).startswith("-")] + sorted(settings.keys() - known)
    if unknown or len(paths) > 1:
        wrong = ", ".join(unknown) or "more than one file"
        print(f"error: {wrong}: there is no such setting; there are {', '.join(sorted(known))}", file=sys.stderr)
        sys.exit(2)
    return paths, settings


def reported(work: Callable[[], None]) -> NoReturn:
    """Do the work and exit: 0 done, 1 failed, 2 wrong settings, 130 or 143 stopped; a mistake is one line, no traceback."""
    bring_token()
    try:
        work()
    except OffsftError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        sys.exit(stopping.exit_status())
    sys.exit(0)
