"""The training of a recipe in miniature: what would stop it, or its export, found in seconds and without weights."""

import json
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from offsft.config import TrainConfig
from offsft.config.objective import Dft
from offsft.errors import ModelError
from offsft.models import description_of
from offsft.records import Finding
from offsft.train.export import Source, export
from offsft.train.lora import add_adapters
from offsft.train.miniature import build_miniature
from offsft.train.policy import PolicyLoss, loss_of
from offsft.train.probe import Handling, find_handling
from offsft.train.rows import Row, pack


def handling_of(model: str, revision: str | None, settings: TrainConfig) -> Handling:
    """How the model is trained; packed where only its workers can tell.

    Raises:
        ModelError: it cannot be trained exactly; names the family and the reason.
    """
    with description_of(model, revision) as folder:
        config = read_config(folder)
    _check_is_causal_lm(config)
    try:
        build_miniature(config)
    except ModelError:
        return Handling(packed=True)
    return _handling(type(config), json.dumps(config.to_dict(), default=str), settings.max_tokens, settings.router_loss)


@lru_cache(maxsize=8)
def _handling(kind: Any, entries: str, max_tokens: int, router_loss: float | None) -> Handling:
    # The check at a job's start and the training after it ask the same.
    return find_handling(kind.from_dict(json.loads(entries)), max_tokens=max_tokens, router_weight=router_loss)


def read_config(folder: Path) -> Any:
    """A model's configuration.

    Raises:
        ModelError: transformers does not know it without code that comes with the model.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{folder / 'config.json'} cannot be used: {reason} (code that comes with a model is never run; use one that"
            " transformers knows by itself)"
        ) from None


def tokens_beyond(folder: Path, words: int) -> list[str]:
    """Tokens of a model's tokenizer whose ids lie beyond its vocabulary, sorted."""
    from transformers import AutoTokenizer

    known = AutoTokenizer.from_pretrained(folder, trust_remote_code=False).get_vocab()
    return sorted(token for token, number in known.items() if number >= words)


def _check_is_causal_lm(config: Any) -> None:
    from transformers import AutoModelForCausalLM

    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(
            f"{config.model_type} is not a causal language model that transformers knows; use another model"
        )


def check_training(config: Any, source: Source, settings: TrainConfig) -> Iterator[Finding]:
    """Findings of one step's parts and the export, on a miniature of the configuration's architecture."""
    try:
        _check_is_causal_lm(config)
    except ModelError as error:
        yield Finding("training", True, str(error))
        return
    try:
        miniature = build_miniature(config)
    except ModelError as error:
        yield Finding("training", False, f"{error}; the workers try the model itself before the first step")
        return
    yield from _check_settings(miniature, settings)
    yield from _check_step(miniature, settings)
    yield from _check_export(miniature, source)
    yield from _check_handling(config, settings)


def _check_settings(miniature: Any, settings: TrainConfig) -> Iterator[Finding]:
    kind = miniature.config.model_type
    if settings.gradient_checkpointing and not miniature.supports_gradient_checkpointing:
        yield Finding("training", True, f"{kind} cannot recompute activations; set train.gradient_checkpointing=false")
    if settings.lora.rank:
        try:
            handle = add_adapters(miniature, settings.lora)
        except ValueError as error:
            targets = settings.lora.targets
            yield Finding(
                "training", True, f"train.lora.targets={targets}: {_first_line(error)}; name layers that {kind} has"
            )
        else:
            handle.unload()


def _check_step(miniature: Any, settings: TrainConfig) -> Iterator[Finding]:
    """Try the forward and backward pass of one row, as in training: some families ask for more than in sampling."""
    try:
        policy = PolicyLoss(
            miniature, Dft(), dropout=settings.dropout, router_weight=settings.router_loss, packed=False, check=False
        )
        if settings.gradient_checkpointing:
            miniature.gradient_checkpointing_enable()
        loss_of(policy.train(), pack([Row("probe", "self", [5, 6], [7, 8, 9])], [0])).loss.backward()
    except ModelError:
        return  # said by the check of how the family is trained
    except Exception as error:  # whatever a family's own code raises in training
        yield Finding(
            "training",
            False,
            f"in miniature, a step of {miniature.config.model_type} raises {type(error).__name__}: {_first_line(error)}; the"
            " workers may stop with the same, so try a few rows first (data.limit)",
        )


def _check_export(miniature: Any, source: Source) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            notes = export(miniature, miniature.state_dict(), source, Path(folder) / "model")
        except Exception as error:  # whatever saving raises now, it would raise after the last step
            said = (
                _first_line(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {_first_line(error)}"
            )
            yield Finding("export", True, f"the trained model could not be saved: {said}; mend the model's files")
            return
    yield from (Finding("export", False, f"in the exported folder, {note}") for note in notes)


def _check_handling(config: Any, settings: TrainConfig) -> Iterator[Finding]:
    entries = json.dumps(config.to_dict(), default=str)
    try:
        handling = _handling(type(config), entries, settings.max_tokens, settings.router_loss)
    except ModelError as error:
        yield Finding("training", True, str(error))
        return
    if not handling.packed:
        yield Finding(
            "packing",
            False,
            f"{config.model_type} is trained one row per micro-batch, which is exact and slower: packed, {handling.why_unpacked}",
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
