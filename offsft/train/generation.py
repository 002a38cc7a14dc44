"""The generation settings of an exported model: the source's, mended where transformers would refuse them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offsft.errors import ModelError

FILE = "generation_config.json"
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
_FIRST = ("do_sample", "num_beams", "use_cache")
"""Settings that decide whether others are accepted, and so are tried before them."""


def read_generation(folder: Path) -> dict[str, Any]:
    """The entries of a model's generation_config.json; empty where it has none.

    Raises:
        ModelError: the file is not a JSON object.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        entries = f"it is not valid JSON ({error})"
    if not isinstance(entries, dict):
        reason = entries if isinstance(entries, str) else "it holds no JSON object"
        raise ModelError(f"{path} cannot be read: {reason}; mend it, or delete it to use the model's defaults")
    return entries


def mend_generation(entries: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Entries that transformers accepts and saves, and a note for each change.

    Llama 2 and Vicuna were published with a temperature and without `do_sample`: they were meant to sample, as
    their authors' later files say, so `do_sample` becomes true. What is refused even so is left out.
    """
    wanted, notes = dict(entries), []
    if wanted.get("temperature") == 0:
        del wanted["temperature"]
        wanted["do_sample"] = False
        notes.append("temperature=0 became do_sample=false, which is how transformers says it")
    sampling = [name for name in _SAMPLING if wanted.get(name) is not None]
    if wanted.get("do_sample") is None and not _is_accepted(wanted) and _is_accepted({**wanted, "do_sample": True}):
        wanted["do_sample"] = True
        notes.append(f"do_sample=true was added, since {', '.join(sampling)} have no effect without it")
    kept: dict[str, Any] = {}
    for name in sorted(wanted, key=lambda name: name not in _FIRST):
        if _is_accepted({**kept, name: wanted[name]}):
            kept[name] = wanted[name]
        else:
            notes.append(f"{name}={json.dumps(wanted[name])} was left out: transformers refuses it beside the others")
    return {name: kept[name] for name in wanted if name in kept}, notes


def _is_accepted(entries: Mapping[str, Any]) -> bool:
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_dict(dict(entries)).validate(strict=True)
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def unite_ends(found: int | list[int] | None, taught: int) -> int | list[int]:
    """The ids that end generation, with the one that training taught among them."""
    known = [] if found is None else found if isinstance(found, list) else [found]
    return found if found is not None and taught in known else [*known, taught] if known else taught
