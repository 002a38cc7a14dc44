"""Arguments of the applications, checked; and where their recipes and models are."""

import hashlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from offsft.config import Recipe
from offsft.errors import ConfigError, ModelError
from offsft.recipes import load
from offsft.strict import Strict

ROOT = Path(__file__).resolve().parent.parent
_ENDS_BYTES = 2**20

T = TypeVar("T", bound=Strict)


def checked(kind: type[T], tree: dict[str, Any], where: str) -> T:
    """The settings in `tree`.

    Raises:
        ConfigError: naming `where`, the key, the value and what is wrong.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"{where}: {'.'.join(map(str, e['loc'])) or 'settings'}={e['input']!r}: {e['msg']}" for e in error.errors()
        ]
        raise ConfigError("\n".join(lines)) from None


def recipe_at(path: str) -> Recipe:
    """The recipe of a Serve config; relative paths are relative to the repository."""
    return load(ROOT / path, [])


def model_folder(path: str) -> str:
    """The folder or Hugging Face name that an engine and a tokenizer load; `embedded` is unpacked on first use.

    Raises:
        ModelError: it looks like a folder and is none.
    """
    if path == "embedded":
        from offsft.demo.model import embedded_model

        return str(embedded_model())
    folder = Path(path) if Path(path).is_absolute() else ROOT / path
    if (folder / "config.json").is_file():
        return str(folder)
    if folder.exists() or path.startswith((".", "/", "runs/")):
        raise ModelError(f"{path} holds no model (no config.json); name a Hugging Face model folder")
    return path


def revision_of(folder: str, revision: str | None) -> str:
    """What names the weights in answers: of a folder a fingerprint of its files, of a Hugging Face name its revision.

    The fingerprint covers each file's name, size, and first and last MiB: no training leaves those as they were.
    """
    if not Path(folder).is_dir():
        return revision or "main"
    digest = hashlib.sha256()
    for file in sorted(path for path in Path(folder).iterdir() if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as content:
            digest.update(content.read(_ENDS_BYTES))
            content.seek(max(0, size - _ENDS_BYTES))
            digest.update(content.read(_ENDS_BYTES))
    return digest.hexdigest()[:12]
