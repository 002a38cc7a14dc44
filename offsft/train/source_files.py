"""The files of a model's folder other than its weights: an exported model has all of them."""

import shutil
from pathlib import Path

from offsft.storage.weights import WEIGHT_FILES

_MADE_ANEW = frozenset({"config.json", "generation_config.json", "README.md", "offsft-manifest.json"})
_CARD = "README.md"


def copy_other_files(source: Path, folder: Path, trained_from: str) -> list[str]:
    """Copy everything but weights and configuration, byte for byte; returns the copied names, sorted.

    Tokenizer, chat template, processors and licence are the source's own files. Its README.md gets a line that says
    that its weights are others.
    """
    copied = []
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if not path.is_file() or _is_left_out(inner):
            continue
        place = folder / inner
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)  # the content alone: modes are the new folder's, and links of a cache are followed
        copied.append(inner.as_posix())
    card = source / _CARD
    if card.is_file():
        (folder / _CARD).write_text(_marked(card.read_text(encoding="utf-8", errors="replace"), trained_from), "utf-8")
    return copied


def _is_left_out(inner: Path) -> bool:
    hidden = any(part.startswith(".") for part in inner.parts)
    return hidden or str(inner) in _MADE_ANEW or any(inner.match(pattern) for pattern in WEIGHT_FILES)


def _marked(card: str, trained_from: str) -> str:
    """A model card with a line, below its metadata, that says whose text it is."""
    line = f"> Weights trained by offsft from `{trained_from}`. The text below is that model's own card.\n\n"
    if card.startswith("---\n"):
        head, fence, rest = card[4:].partition("\n---\n")
        if fence:
            return f"---\n{head}{fence}\n{line}{rest.lstrip()}"
    return line + card


def share_modes(folder: Path, like: str) -> None:
    """Give all files the mode of one of them: safetensors creates files that only their owner can read."""
    mode = (folder / like).stat().st_mode & 0o777
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
