"""Resolves a model to what libraries can load: a folder (the embedded model, a copy from S3) or a Hugging Face name."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from offsft.config import ModelConfig, Recipe
from offsft.errors import ConfigError, ModelError
from offsft.storage.faults import check_reachable
from offsft.storage.paths import at, cache_folder, filling, get_all, is_url
from offsft.storage.submitted import on_this_node
from offsft.storage.weights import WEIGHT_FILES, check_weights

MODEL_LAST = "config.json"
"""The file of a model's folder that is written last: without it the folder is not a model, or an incomplete one."""
_ENDS_BYTES = 2**20


def resolve_model(model: ModelConfig, setting: str = "model.path") -> str:
    """Folder or name of the policy that the engines load; the embedded model is unpacked on first use.

    Raises:
        ConfigError: there is no such model.
        ModelError: its folder is not a complete model.
    """
    if model.path == "embedded":
        from offsft.demo.model import embedded_model

        return str(embedded_model())
    return resolve_folder(model, setting) or _check_hub_name(model, setting)


def resolve_folder(model: ModelConfig, setting: str = "model.path") -> str | None:
    """The absolute path or URL of a model's folder, checked; None for a Hugging Face name and the embedded model.

    Raises:
        ConfigError: there is no such folder.
        ModelError: it is not a complete model.
    """
    if model.path == "embedded":
        return None
    path = at(model.path, setting)
    check_reachable(path, setting)
    if not path.is_dir():
        if path.exists():
            raise ConfigError(f"{setting}={model.path} is a file; give the folder of a Hugging Face model")
        if model.path.startswith((".", "/", "~", "s3://")):
            raise ConfigError(
                f"{setting}={model.path} does not exist; give a folder, a Hugging Face name, or `embedded`"
            )
        return None
    if not (path / MODEL_LAST).is_file():
        raise ModelError(f"{setting}={model.path} has no {MODEL_LAST}; give the folder of a Hugging Face model, whole")
    if not model.pickled_weights and not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{setting}={model.path} holds no *.safetensors; save the model as safetensors, or set"
            " model.pickled_weights=true if you trust whoever made its files"
        )
    try:
        check_weights(path)
    except ModelError as error:
        raise ModelError(f"{setting}={model.path}: {error}") from None
    return str(path.resolve())


def _check_hub_name(model: ModelConfig, setting: str) -> str:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{setting}={model.path} is neither a folder nor a model that can be fetched: {reason}"
        ) from None
    return model.path


def fingerprint(model: str, revision: str | None = None) -> str:
    """An identifier of a model's weights: 12 digits from a folder's or URL's files, a Hugging Face name's revision.

    It covers each file's name, size, and first and last MiB in a folder: any training changes those.

    Raises:
        ModelError: there is no complete model at a URL.
    """
    if is_url(model):
        return hashlib.sha256(json.dumps(_stamps(model)).encode()).hexdigest()[:12]
    if not Path(model).is_dir():
        return revision or "main"
    digest = hashlib.sha256()
    for file in sorted(path for path in Path(model).iterdir() if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as content:
            digest.update(content.read(_ENDS_BYTES))
            content.seek(max(0, size - _ENDS_BYTES))
            digest.update(content.read(_ENDS_BYTES))
    return digest.hexdigest()[:12]


def longest_sequence(model: str, revision: str | None, context_tokens: int, *, fetch: bool = True) -> int:
    """Longest sequence in tokens that an engine must hold for rows of up to `context_tokens`.

    Scoring a row samples one token after it, so this is one more, unless the model's positions end there. `fetch` is as
    for `position_limit`.

    Raises:
        ModelError: `context_tokens` is beyond the model's positions.
    """
    limit = position_limit(model, revision, fetch=fetch)
    if limit is None:
        return context_tokens + 1
    if context_tokens > limit:
        raise ModelError(
            f"model.context_tokens={context_tokens} is beyond the {limit} positions of {model}; set it to {limit} or less"
        )
    return min(context_tokens + 1, limit)


def scored_tokens(model: str, revision: str | None, context_tokens: int) -> int:
    """Longest row (prompt and response) that can be scored: `context_tokens`, or one less if the model ends there.

    Raises:
        ModelError: `context_tokens` is beyond the model's positions.
    """
    return min(context_tokens, longest_sequence(model, revision, context_tokens) - 1)


def position_limit(model: str, revision: str | None, *, fetch: bool = True) -> int | None:
    """Number of positions in a model's configuration, as vLLM reads it; None if it does not say.

    Without `fetch`, a Hugging Face name is looked up only in the local cache; if it is not there, the result is None.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        with _local_config(model) as folder:
            config = AutoConfig.from_pretrained(
                folder, revision=revision, trust_remote_code=False, local_files_only=not fetch
            ).get_text_config()
    except (OSError, ValueError, StrictDataclassError):
        return None  # the engine will report what is wrong with it
    if own := getattr(config, "model_max_length", None):
        return int(own)
    limits = [getattr(config, key, None) for key in _POSITIONS]
    limit = min((each for each in limits if each is not None), default=None)
    return None if limit is None else int(limit * _rope_factor(config, limit))


_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
"""Names of the number of positions in different model families."""


def _rope_factor(config: Any, limit: int) -> float:
    """Factor by which RoPE scaling extends the configured number of positions; 1 where that already includes it."""
    rope = getattr(config, "rope_parameters", None) or {}
    each = [rope] if "rope_type" in rope else [part for part in rope.values() if isinstance(part, dict)]
    factor = 1.0
    for part in each:
        if "gemma3" in config.model_type or part.get("rope_type") in ("su", "longrope", "llama3"):
            continue
        factor = part.get("factor") or factor
        if part.get("rope_type") == "yarn":
            return factor * part.get("original_max_position_embeddings", limit) / limit
    return factor


@contextmanager
def _local_config(model: str) -> Iterator[str]:
    """A folder with the model's configuration, or the model's Hugging Face name."""
    if not is_url(model):
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, MODEL_LAST).write_bytes((at(model) / MODEL_LAST).read_bytes())
        yield folder


def files_but_weights(model: str, revision: str | None) -> Path:
    """The folder with a model's files: the given one, or for a Hugging Face name a local copy without weights."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, revision=revision, ignore_patterns=list(WEIGHT_FILES)))


@contextmanager
def description_of(model: str, revision: str | None) -> Iterator[Path]:
    """As `files_but_weights`, also for a model at an s3:// URL, whose copy lasts as long as the block."""
    if not is_url(model):
        yield files_but_weights(model, revision)
        return
    place: Any = at(model)
    with tempfile.TemporaryDirectory() as folder:
        for name in place.fs.find(place.path):
            inner = name.removeprefix(place.path + "/")
            if "/" not in inner and not any(Path(inner).match(pattern) for pattern in WEIGHT_FILES):
                place.fs.get_file(name, str(Path(folder) / inner))
        yield Path(folder)


def policy_name(recipe: Recipe) -> str:
    """The policy's name in rows: model and revision."""
    return f"{recipe.model.path}@{recipe.model.revision}" if recipe.model.revision else recipe.model.path


def download_model(model: str) -> str:
    """What this node loads for a model that the driver has resolved: a folder here, or a Hugging Face name.

    A model at an s3:// URL is copied into the user's cache folder, and anew when an object on S3 changes. The embedded
    model is unpacked here, and a folder that was submitted with the job is this node's copy of it. Several processes may
    ask at once: one downloads, the others wait for it.

    Raises:
        ModelError: there is no complete model, or it changed during the download.
    """
    if not is_url(model):
        from offsft.demo.model import embedded_model, is_embedded

        path = on_this_node(model)
        return str(embedded_model()) if is_embedded(path) and not Path(path).exists() else path
    stamps = _stamps(model)
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
                if _stamps(model) != stamps:
                    raise ModelError(f"{model} changed while it was fetched; run the same command again")
    return str(target)


def _stamps(model: str) -> list[tuple[str, int, str]]:
    """Name, size in bytes and entity tag of each object of a model at an s3:// URL.

    Raises:
        ModelError: there is no complete model.
    """
    place: Any = at(model, "model.path")
    found = place.fs.find(place.path, detail=True)
    stamps = sorted((name.removeprefix(place.path), file["size"], file["ETag"]) for name, file in found.items())
    if f"/{MODEL_LAST}" not in {name for name, *_ in stamps}:
        raise ModelError(f"{model} holds no {MODEL_LAST}: it is not a model, or an incomplete one")
    return stamps
