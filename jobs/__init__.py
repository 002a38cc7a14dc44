"""Commands for `offsft <job>`, `python -m jobs.<job>` and `ray job submit`: parse, then import, then call the library.

From a clone this package is `jobs`; where offsft is installed it is `offsft.jobs`, and `services` is `offsft.services`.
"""

from importlib import import_module
from typing import Any


def import_services(module: str) -> Any:
    """Import a module of `services`, the sibling of this package under either name."""
    return import_module(f"{__name__.removesuffix('jobs')}services.{module}")
