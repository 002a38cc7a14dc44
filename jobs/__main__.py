"""The command `offsft`, and `python -m jobs` in a clone: `offsft JOB [RECIPE] [key=value ...]` runs a job of this folder."""

import ast
import difflib
import os
import runpy
import sys
from pathlib import Path

from offsft import __version__

from .cli import print_help, recipe_names

_MARK = "python -m jobs."
_USAGE = """{command} JOB [RECIPE] [key=value ...]
{command} JOB --help
{command} --version

RECIPE is a YAML file, or the name of a recipe that comes with offsft: {recipes}.

Jobs:
{jobs}"""


def main() -> None:
    """Run the job that the command line names; exits with its status, or with 2 if there is no such job."""
    name, *arguments = sys.argv[1:] or ["--help"]
    jobs = job_summaries()
    if name in ("-h", "--help"):
        print_help(_usage(jobs))
    elif name == "--version":
        print(f"offsft {__version__}")
    elif name in jobs:
        sys.argv[1:] = arguments
        sys.path.insert(0, os.getcwd())  # as `python -m` does: a user's own verifier lies there
        runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)
    else:
        close = difflib.get_close_matches(name, jobs, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(jobs)}"
        print(f"error: {name}: there is no such job; {hint}", file=sys.stderr)
        sys.exit(2)


def job_summaries() -> dict[str, str]:
    """Each job of this folder with the first sentence of its docstring, without importing it."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if documentation.startswith(_MARK):
            text = " ".join(documentation.split("\n\n")[1].split())
            found[path.stem] = text.split(". ")[0].removesuffix(".")
    return found


def _usage(jobs: dict[str, str]) -> str:
    lines = (f"  {name:15}{summary}" for name, summary in jobs.items())
    command = "python -m jobs" if __package__ == "jobs" else "offsft"
    return _USAGE.format(command=command, recipes=", ".join(recipe_names()), jobs="\n".join(lines))


if __name__ == "__main__":
    main()
