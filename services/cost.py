"""What a request costs, computed from its body before an engine sees it, and its limits.

Where a prompt is text, its tokens are bounded by its bytes and by the model's context: tokenizing it here would cost as
much time as the check should save.
"""

import json
from dataclasses import dataclass
from typing import Any

from .errors import ApiError
from .settings import Limits


@dataclass(frozen=True)
class Cost:
    """Upper bounds of what one request asks for."""

    sequences: int
    """Sequences sampled at once."""
    sampled_tokens: int
    """Tokens sampled, over all sequences."""
    prompt_tokens: int
    """Tokens read, over all prompts."""
    scored_tokens: int = 0
    """Prompt tokens whose log-probs are computed; once, however many samples are asked for."""
    logprobs: int = 0
    """Log-probs in the answer."""

    @property
    def tokens(self) -> int:
        """Work in tokens sampled: a prompt's tokens are read many at once, unless each is scored."""
        return 1 + self.sampled_tokens + self.prompt_tokens // 16 + self.scored_tokens // 2


def openai_cost(body: Any, limits: Limits, context_tokens: int) -> Cost:
    """The cost of a chat, completions or responses request; `context_tokens` bounds a prompt's length.

    Raises:
        ApiError: 422, with the figure and the limit, for the first figure beyond its limit.
    """
    lengths = [min(context_tokens, length) for length in _prompt_lengths(body)]
    n = _whole(getattr(body, "n", None) or 1)
    wanted = next((getattr(body, name) for name in _LENGTHS if getattr(body, name, None) is not None), None)
    _hold(n * len(lengths), limits.samples, "n", "samples")
    _hold(wanted or 0, limits.max_tokens, "max_tokens", "max_tokens")
    most = min(context_tokens, limits.max_tokens if wanted is None else max(0, wanted))
    top, scored_top, echoes = _logprobs_asked(body)
    scored = sum(lengths) if scored_top is not None else 0
    sampled = n * len(lengths) * most
    in_answer = scored * (n if echoes else 1) * (1 + (scored_top or 0)) + (0 if top is None else sampled * (1 + top))
    _hold(scored, limits.scored_tokens, "prompt_logprobs" if not echoes else "echo", "scored_tokens")
    _hold(in_answer, limits.logprobs, "logprobs" if top is not None else "prompt_logprobs", "logprobs")
    _hold(_grammar_bytes(body), limits.grammar_bytes, "structured_outputs", "grammar_bytes")
    return Cost(n * len(lengths), sampled, sum(lengths), scored, in_answer)


_LENGTHS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_GRAMMAR = ("structured_outputs", "response_format", "tools", "text")


def _prompt_lengths(body: Any) -> list[int]:
    """The length of each prompt, at most: tokens where they are given, else bytes."""
    prompt = getattr(body, "prompt", None)
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return [len(each) if isinstance(each, list) else len(each.encode()) for each in prompt]
    if isinstance(prompt, list):
        return [len(prompt)]
    if isinstance(prompt, str):
        return [len(prompt.encode())]
    texts = getattr(body, "messages", None) or getattr(body, "input", None) or ""
    return [len(texts.encode() if isinstance(texts, str) else str(texts).encode())]


def _logprobs_asked(body: Any) -> tuple[int | None, int | None, bool]:
    """Alternatives per sampled token and per prompt token, None for none; whether each choice repeats the prompt's."""
    echoes = bool(getattr(body, "echo", False))
    wanted = getattr(body, "logprobs", None)
    if wanted is True:  # a chat's, which asks for alternatives beside it
        wanted = getattr(body, "top_logprobs", None) or 0
    # -1 is the whole vocabulary, which an engine refuses unless its own setting allows it.
    top = None if wanted is None or wanted is False else abs(wanted)
    scored = getattr(body, "prompt_logprobs", None)
    return top, top if scored is None and echoes else None if scored is None else abs(scored), echoes


def _grammar_bytes(body: Any) -> int:
    parts = (getattr(body, name, None) for name in _GRAMMAR)
    return sum(len(json.dumps(_plain(part), default=str)) for part in parts if part)


def _plain(part: Any) -> Any:
    if isinstance(part, list):
        return [_plain(each) for each in part]
    return part.model_dump() if hasattr(part, "model_dump") else getattr(part, "__dict__", part)


def _whole(figure: Any) -> int:
    return max(1, int(figure))


def _hold(figure: int, limit: int, param: str, setting: str) -> None:
    if figure > limit:
        more = "" if param == setting else f" (limits.{setting})"
        raise ApiError(
            422, f"{param} comes to {figure}, and the limit is {limit}{more}", code="beyond_limit", param=param
        )
