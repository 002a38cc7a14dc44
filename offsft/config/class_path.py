"""User-defined classes, named in a recipe as `mypackage.module:MyClass`."""

import importlib
import inspect
import re
from typing import Any

from offsft.errors import ConfigError

_CLASS_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_class_path(text: str) -> bool:
    """Whether a text has the form `mypackage.module:MyClass`; nothing is imported."""
    return _CLASS_PATH.fullmatch(text) is not None


def load_class(path: str, setting: str) -> type[Any]:
    """Import a class by its path; `setting` is the recipe's key, for the errors.

    Raises:
        ConfigError: the module cannot be imported, or has no such class.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(
            f"{setting}={path}: {error}; the module must be importable wherever an engine runs (on PYTHONPATH, or in"
            " the working folder of the job)"
        ) from None
    except AttributeError:
        raise ConfigError(f"{setting}={path}: the module {module} has no class {name}") from None
    if not inspect.isclass(found):
        raise ConfigError(f"{setting}={path}: {name} is not a class")
    return found
