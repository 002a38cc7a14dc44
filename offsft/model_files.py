"""Models on S3, fetched once to each machine's disk before anything loads them."""

import hashlib
import json
from typing import Any

from filelock import FileLock

from offsft.demo.model import cache_folder
from offsft.errors import ModelError
from offsft.storage import at, filling, get_all, is_url

MODEL_LAST = "config.json"
"""The file of a model's folder that is written last: without it the folder is no model, or only a part of one."""


def fetched(model: str) -> str:
    """What libraries can load: a folder or Hugging Face name as it is, the local copy of a model at an s3:// URL.

    The copy lies in the user's cache folder and is made anew when an object there changes. Several processes may ask at
    once: one fetches, the others wait for it.

    Raises:
        ModelError: there is no whole model, or it changed while it was fetched.
    """
    if not is_url(model):
        return model
    stamps = stamps_of(model)
    place = at(model, "model.path")
    key = hashlib.sha256(json.dumps([model, stamps]).encode()).hexdigest()[:16]
    target = cache_folder() / "models" / f"s3-{place.name}-{key}"
    if target.exists():
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if not target.exists():
            with filling(target) as writing:
                get_all(place, writing)
                if stamps_of(model) != stamps:
                    raise ModelError(f"{model} changed while it was fetched; run the same command again")
    return str(target)


def stamps_of(model: str) -> list[tuple[str, int, str]]:
    """Name, size in bytes and entity tag of each object of a model at an s3:// URL.

    Raises:
        ModelError: there is no whole model.
    """
    place: Any = at(model, "model.path")
    found = place.fs.find(place.path, detail=True)
    stamps = sorted((name.removeprefix(place.path), file["size"], file["ETag"]) for name, file in found.items())
    if f"/{MODEL_LAST}" not in {name for name, *_ in stamps}:
        raise ModelError(f"{model} holds no {MODEL_LAST}: it is no model, or not yet a whole one")
    return stamps
