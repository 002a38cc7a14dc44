"""How an architecture can be trained exactly: with packed rows, with one row per micro-batch, or not at all.

The answer comes from a miniature of the architecture: what the training computes for its tokens is compared with the
model's own logits, row by row and with its own written-out attention.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from offsft.config.objective import Dft
from offsft.errors import ModelError
from offsft.train.miniature import SWITCH_TOKENS, WINDOW_TOKENS, build_miniature
from offsft.train.policy import PolicyLoss
from offsft.train.rows import Row, pack

TOLERANCE = 5e-4
"""Largest difference of log-probs, nats, in float32. What is computed otherwise differs by hundreds of times this."""


@dataclass(frozen=True, slots=True)
class Handling:
    """How a family is trained; `why_unpacked` is the reason where each row is a micro-batch of its own."""

    packed: bool
    why_unpacked: str | None = None


def find_handling(config: Any, *, max_tokens: int | None = None, router_weight: float | None = 0.0) -> Handling:
    """The fastest way to train a configuration's architecture that is exact; `max_tokens` is its longest row.

    Raises:
        ModelError: no way is exact, or no miniature of it can be built; names the family and the reason.
    """
    model = build_miniature(config)
    return probe(model, _probe_rows(config, max_tokens, _words(model)), router_weight=router_weight)


def probe(model: Any, rows: Sequence[Row], *, router_weight: float | None = 0.0) -> Handling:
    """As `find_handling`, for a model in float32 and rows that reach beyond its windows and switches."""
    kind = model.config.model_type
    with _quiet(), torch.no_grad():
        want = [_own_logprobs(model, row) for row in rows]
        _check_causal(model, rows[1], want[1])  # the longest may switch its positions at its end
        policy = PolicyLoss(model, Dft(), router_weight=router_weight, check=False).eval()
        found: list[str] = []
        for packed in (True, False):
            policy.packed = packed
            apart = _apart(policy, rows, want, packed=packed)
            if not isinstance(apart, str):
                if apart <= TOLERANCE:  # false for NaN
                    return Handling(packed, None if packed else found[0])
                apart = f"log-probs differ by {apart:.2g} nats from the model's own"
            found.append(apart)
    raise ModelError(
        f"{kind} cannot be trained exactly: one row at a time, {found[1]}; it does something to its hidden states or"
        " logits that the fused head does not know, so use another model"
    )


def _words(model: Any) -> int:
    return len(model.get_input_embeddings().weight)


def _probe_rows(config: Any, max_tokens: int | None, words: int) -> list[Row]:
    """Rows of random ids: one beyond windows and rope switches, one beyond windows, and a short one."""
    switch = switch_tokens(config)
    reached = switch is None or max_tokens is None or max_tokens > switch
    lengths = (SWITCH_TOKENS + 2 * WINDOW_TOKENS if reached else SWITCH_TOKENS - 2, WINDOW_TOKENS + 5, 6)
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(5, min(120, words), (length,), generator=draw).tolist() for length in lengths]
    return [Row(f"probe-{n}", "self", each[:2], each[2:]) for n, each in enumerate(ids)]


def switch_tokens(config: Any) -> int | None:
    """Length of rows from which a model's rotary positions are others; None where they never change."""
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    for part in [rope, *(each for each in rope.values() if isinstance(each, dict))]:
        if part.get("rope_type") in ("longrope", "dynamic"):
            original = part.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", None
            )
            return int(original or text.max_position_embeddings)
    return None


def _own_logprobs(model: Any, row: Row) -> torch.Tensor:
    """Log-probs of a row's response by the model's own logits, with attention as the family defines it."""
    own = model.config._attn_implementation
    can_set = model._can_set_attn_implementation()
    if can_set:
        model.set_attn_implementation("eager")
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
    logits = model(input_ids=ids, use_cache=False).logits[0, len(row.prompt_ids) - 1 : -1].float()
    if can_set:
        model.set_attn_implementation(own)
    return logits.log_softmax(1).gather(1, torch.tensor(row.response_ids)[:, None])[:, 0]


def _check_causal(model: Any, row: Row, want: torch.Tensor) -> None:
    half = len(row.response_ids) // 2
    begun = Row(row.id, row.source, row.prompt_ids, row.response_ids[:half])
    moved = float((_own_logprobs(model, begun) - want[:half]).abs().max())
    if not moved <= TOLERANCE:
        said = "its log-probs are not numbers" if moved != moved else f"by {moved:.2g} nats"
        raise ModelError(
            f"{model.config.model_type} is not causal: what follows a token changes its log-prob ({said}); use a model that"
            " generates from left to right"
        )


def _apart(policy: PolicyLoss, rows: Sequence[Row], want: list[torch.Tensor], *, packed: bool) -> float | str:
    """The largest difference of log-probs from the model's own, or the error with which the model refuses."""
    orders = [[0, 1, 2], [2, 1, 0], [1, 0, 2]] if packed else [[0], [1], [2]]
    worst = 0.0
    try:
        policy.choose_attention()
    except Exception as error:  # as below
        return _refusal(error)
    for order in orders:
        try:
            got = policy(pack(rows, order), score=True)
        except Exception as error:  # whatever a family raises for arguments or shapes that it does not take
            return _refusal(error)
        moved = float((got - torch.cat([want[number] for number in order])).abs().max())
        worst = moved if not moved <= worst else worst
    return worst


def _refusal(error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"the model refuses with {type(error).__name__}: {reason}"


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers warns of what a miniature does not do: sampling, real weights, fast kernels."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
