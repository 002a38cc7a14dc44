"""One request through the cascade: checked as the batch job checks a row, rewritten by the same code, told as JSON."""

import asyncio
import json
import math
import time
from dataclasses import dataclass, replace
from typing import Any

from offsft.cascade import CascadeSettings, Observer, rewrite
from offsft.config import Fields, Limits
from offsft.problems import RawRow, Reason, Rejected, parse
from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams, Verifier
from offsft.records import Completion, Problem, Rewrite
from services.errors import ApiError
from services.front import Note
from services.models import Served
from services.wire import RewriteAnswer, RewriteProblem

_STAGES = ("self", "guided", "expert")


class Metered:
    """A sampler whose tokens are counted on a request's note, those of unfinished requests too where they are known."""

    def __init__(self, sampler: Sampler, note: Note) -> None:
        self._sampler = sampler
        self._note = note
        self.prompt_tokens = 0
        self.completion_tokens = 0

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        self._count(len(prompt_ids), 0)
        completions = await self._sampler.sample(prompt_ids, n=n, params=params)
        self._count(0, sum(len(completion.token_ids) for completion in completions))
        return completions

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        self._count(len(prompt_ids) + len(response_ids), 0)
        return await self._sampler.score(prompt_ids, response_ids)

    def _count(self, prompt: int, completion: int) -> None:
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self._note.prompt_tokens += prompt
        self._note.completion_tokens += completion


@dataclass(frozen=True)
class Rewriter:
    """What all requests share: the recipe's cascade, the verifier, the limits."""

    settings: CascadeSettings
    verifier: Verifier
    limits: Limits

    async def rewrite(
        self,
        body: RewriteProblem,
        served: Served,
        note: Note,
        *,
        queued_s: float = 0.0,
        observer: Observer | None = None,
    ) -> RewriteAnswer:
        """The answer to one problem.

        Raises:
            ApiError: 422 for a problem that cannot be used or is beyond a limit.
            EngineError: the engine died or does not answer.
        """
        started_s = time.monotonic()
        settings = self._settings_for(body)
        prompts, sampler = await served.open()
        # A long text takes the tokenizer longer than the other requests should wait.
        problem = await asyncio.to_thread(self._problem, body, prompts, settings)
        metered = Metered(sampler, note)
        done = await rewrite(
            problem, prompts=prompts, sampler=metered, verifier=self.verifier, settings=settings, observer=observer
        )
        texts = body.keep_attempts or observer is not None
        return RewriteAnswer.model_validate(
            {
                "id": note.request_id,
                "model": served.name,
                "revision": served.revision,
                **_told(done, prompts, texts),
                "usage": {
                    "prompt_tokens": metered.prompt_tokens,
                    "completion_tokens": metered.completion_tokens,
                    "total_tokens": metered.prompt_tokens + metered.completion_tokens,
                },
                "timing": {"seconds": time.monotonic() - started_s + queued_s, "queued_seconds": queued_s},
            }
        )

    def stages(self, body: RewriteProblem) -> list[str]:
        """The stages that a request asks for.

        Raises:
            ApiError: they are not in order.
        """
        stages: list[str] = list(_STAGES if body.stages is None else body.stages)
        if stages != [stage for stage in _STAGES if stage in stages]:
            raise ApiError(
                422,
                "stages must each be named once, in the order self, guided, expert",
                code="invalid_value",
                param="stages",
            )
        return stages

    def _settings_for(self, body: RewriteProblem) -> CascadeSettings:
        stages, base = self.stages(body), self.settings
        own = body.waves.self_ if body.waves else None
        guided = body.waves.guided if body.waves else None
        settings = replace(
            base,
            self_waves=() if "self" not in stages else base.self_waves if own is None else tuple(own),
            guided_waves=() if "guided" not in stages else base.guided_waves if guided is None else tuple(guided),
            sampling=base.sampling
            if body.temperature is None
            else replace(base.sampling, temperature=body.temperature),
            keep_text=True,
        )
        samples = sum(settings.self_waves) + sum(settings.guided_waves)
        if samples > self.limits.samples:
            raise _beyond("the waves ask for", samples, "samples", self.limits.samples, "waves")
        return settings

    def _problem(self, body: RewriteProblem, prompts: Prompts, settings: CascadeSettings) -> Problem:
        """The problem as the batch job's intake would have it."""
        row = {"problem": body.problem, "solution": body.solution, "answer": body.answer}
        fields = Fields(answer=None if body.answer is None else "answer")
        parsed = parse(RawRow("request", 1, json.dumps(row).encode()), "own", fields)
        if isinstance(parsed, Rejected):
            detail = parsed.detail
            if parsed.reason is Reason.NO_ANSWER:
                detail = "the solution ends in no \\boxed{...}; give the `answer` beside it"
            raise ApiError(422, detail, code=str(parsed.reason))
        counts = (
            ("problem", parsed.problem, self.limits.problem_tokens),
            ("solution", parsed.solution, self.limits.solution_tokens),
        )
        for name, text, limit in counts:
            tokens = len(prompts.response(text)) - 1
            if tokens > limit:
                raise _beyond(f"the {name} has", tokens, "tokens", limit, name)
        prompt, expert = len(prompts.plain(parsed)), len(prompts.response(parsed.solution))
        needed = prompt + max(settings.sampling.max_tokens, expert)
        if needed > settings.context_tokens:
            raise ApiError(
                422,
                f"the prompt has {prompt} tokens, the solution {expert}, and a response may have"
                f" {settings.sampling.max_tokens}: {needed} together, and the model's context has"
                f" {settings.context_tokens}",
                code="too_long",
            )
        return parsed


def _beyond(what: str, figure: int, unit: str, limit: int, param: str) -> ApiError:
    return ApiError(422, f"{what} {figure} {unit}, and the limit is {limit}", code="beyond_limit", param=param)


def _told(done: Rewrite, prompts: Prompts, texts: bool) -> dict[str, Any]:
    """What an answer says of a rewrite."""
    behavior = done.behavior_logprobs or [None] * len(done.response_ids)
    kept = list(zip(prompts.pieces(done.response_ids), done.policy_logprobs, behavior, strict=True))
    expert = list(zip(prompts.pieces(done.expert_ids), done.expert_logprobs, strict=True))
    mean = math.fsum(done.policy_logprobs) / len(done.policy_logprobs)
    return {
        "source": str(done.source),
        "response": done.response,
        "answer": done.answer,
        "attempts": [attempt_told(attempt, text=texts) for attempt in done.attempts],
        "tokens": [{"text": t, "policy_logprob": p, "behavior_logprob": b} for t, p, b in kept],
        "expert_tokens": [{"text": t, "policy_logprob": p} for t, p in expert],
        "behavior_logprobs": done.behavior_logprobs,
        "policy_logprobs": done.policy_logprobs,
        "gap": {
            "kept_mean_logprob": mean,
            "expert_mean_logprob": done.expert_mean_logprob,
            "closed": mean - done.expert_mean_logprob,
        },
    }


def attempt_told(attempt: Any, *, text: bool) -> dict[str, Any]:
    """An attempt as the wire has it."""
    told = {"stage": str(attempt.stage), "outcome": attempt.outcome, "tokens": attempt.tokens}
    return told | {"text": attempt.text} if text else told
