"""Folders of the installed packages, and their dependencies, that the sandbox of `offsft.verify.code` mounts."""

import importlib.metadata
import importlib.util
import re
from functools import cache
from pathlib import Path

from offsft.errors import ConfigError


@cache
def package_folders(packages: tuple[str, ...]) -> tuple[Path, ...]:
    """Folders and files, each to be mounted under its own name, that make these packages importable.

    Raises:
        ConfigError: one of the packages is not installed here.
    """
    found: dict[str, Path] = {}
    seen: set[str] = set()
    for name in packages:
        distribution = _distribution(name)
        if distribution is None:
            raise ConfigError(
                f"verify.code.packages: {name} is not installed here; install it on every node that holds an engine, or"
                " leave it out"
            )
        _collect(distribution, found, seen)
    return tuple(found[name] for name in sorted(found))


def _distribution(name: str) -> importlib.metadata.Distribution | None:
    """The distribution of this name, or the one whose package is imported by this name."""
    candidates = [name, *importlib.metadata.packages_distributions().get(name, [])]
    for candidate in candidates:
        try:
            return importlib.metadata.distribution(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _collect(distribution: importlib.metadata.Distribution, found: dict[str, Path], seen: set[str]) -> None:
    if distribution.name in seen:
        return
    seen.add(distribution.name)
    for file in distribution.files or []:
        top = file.parts[0]
        if top not in ("..", "__pycache__") and not top.endswith((".pth", ".dist-info")):
            found[top] = Path(str(distribution.locate_file(top)))
    for requirement in distribution.requires or []:
        # Dependencies of an extra or of another platform are not installed, or not needed.
        name = re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]
        needed = None if "extra ==" in requirement else _distribution(name)
        if needed is not None:
            _collect(needed, found, seen)
