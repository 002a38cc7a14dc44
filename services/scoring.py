"""Scores a prompt once for all samples of a request: vLLM would compute a prompt's log-probs anew for each of them."""

from typing import Any


def split(request: Any) -> tuple[Any, Any] | None:
    """A request for the prompt's log-probs alone, and one for the samples; None if one request does not repeat work."""
    echoes = bool(getattr(request, "echo", False)) and request.logprobs is not None
    if (request.n or 1) < 2 or not (echoes or request.prompt_logprobs is not None) or request.use_beam_search:
        return None
    tokens = "max_completion_tokens" if hasattr(request, "messages") else "max_tokens"
    prompt = {"n": 1, tokens: 0 if echoes else 1, "request_id": f"{request.request_id}-prompt"}
    samples: dict[str, Any] = {"prompt_logprobs": None} | ({"echo": False} if hasattr(request, "echo") else {})
    if echoes and request.max_tokens == 0:
        samples["max_tokens"] = 1  # an engine samples one; `join` leaves it out
    return request.model_copy(update=prompt), request.model_copy(update=samples)


def join(prompt: Any, samples: Any, request: Any) -> Any:
    """The answer to the whole request from those to its parts."""
    if hasattr(samples, "prompt_logprobs"):  # a chat's answer has them beside its choices
        samples.prompt_logprobs = prompt.prompt_logprobs
        return samples
    for choice in samples.choices:
        scored = prompt.choices[choice.index // request.n]
        choice.prompt_logprobs = scored.prompt_logprobs
        if request.echo:
            _put_in_front(choice, scored, sampled=request.max_tokens != 0)
    return samples


def _put_in_front(choice: Any, scored: Any, *, sampled: bool) -> None:
    """Put the prompt's text and log-probs in front of a sample's, as `echo` asks."""
    own, front = choice.logprobs, scored.logprobs
    if not sampled:
        choice.text, choice.logprobs = scored.text, front
        return
    choice.text = scored.text + choice.text
    start = front.text_offset[-1] + len(front.tokens[-1]) if front.tokens else 0
    own.text_offset = [*front.text_offset, *(start + offset for offset in own.text_offset)]
    for name in ("token_logprobs", "tokens", "top_logprobs"):
        setattr(own, name, [*getattr(front, name), *getattr(own, name)])
