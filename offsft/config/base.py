"""The base class of all settings, and the mark that says which stages' results a setting changes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from offsft.errors import ConfigError


class Strict(BaseModel):
    """Base class of all settings: unknown keys are refused, and nothing changes after parsing.

    The docstring below a field documents it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class Affects:
    """The stages of a run whose results a setting changes, as in `Annotated[int, Affects("train")]`.

    A section's mark applies to all its settings except those that have their own. A setting of a stage that has begun
    must not change, or one folder would hold the results of two experiments; see `offsft.storage.run_folder`.
    """

    def __init__(self, *stages: str) -> None:
        self.stages = frozenset(stages)


FREE = Affects()
"""A setting that changes how a stage runs, but not its results: it may change between two commands on one folder."""


def expand_home(path: str) -> str:
    """Expand a leading `~` to the home folder, which the shell does not do in `key=~/value`."""
    if not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # no such user on this machine
        raise ValueError("there is no such home folder; write the path in full") from None


PathText = Annotated[str, AfterValidator(expand_home)]
"""A local path, an s3:// URL, or another name that a setting accepts instead of a path."""


def refuse(problems: Iterable[tuple[bool, str]]) -> None:
    """Raise one error for everything that is wrong in a section, given as pairs of (is wrong, message).

    Raises:
        ConfigError: something is wrong; joins all the messages.
    """
    said = [message for is_wrong, message in problems if is_wrong]
    if said:
        raise ConfigError("; ".join(said))


def change_by_name(entries: list[Any], changes: Mapping[str, Any], key: str) -> list[Any]:
    """A list of mappings with some of their settings changed: `{self: {waves: [8]}}` changes the entry named self.

    Raises:
        ConfigError: no entry has the name, or a change is not a mapping; `key` says where.
    """
    changed = list(entries)
    for name, change in changes.items():
        number = index_of_name(changed, name, key)
        if not isinstance(change, Mapping):
            raise ConfigError(f"{key}.{name}={change!r} must be a mapping of settings, such as {{waves: [1]}}")
        changed[number] = {**changed[number], **change}
    return changed


def index_of_name(entries: list[Any], name: str, key: str) -> int:
    """The index of the entry with this name in a list of mappings.

    Raises:
        ConfigError: no entry has the name; `key` says where.
    """
    names = [name_of(entry) for entry in entries]
    if name not in names:
        raise ConfigError(f"{key} has no {name}; it has {', '.join(map(str, names)) or 'nothing'}")
    return names.index(name)


def name_of(entry: Any) -> str | None:
    """The name of a mapping in a list: its `name`, else its kind, else the name of its class."""
    if not isinstance(entry, Mapping):
        return None
    return entry.get("name") or str(entry.get("kind", "")).rpartition(":")[2] or None
