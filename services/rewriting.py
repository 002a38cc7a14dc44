"""One request through the cascade: checked like a row of the batch job, rewritten by the same code, sent as JSON."""

import asyncio
import json
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from offsft.config import Fields
from offsft.config.stages import ExpertStage, StageConfig, WavesConfig
from offsft.data.formats import parse
from offsft.data.rows import RawRow, Reason, Rejected
from offsft.data.tables import opinion_rows
from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams, Verifier
from offsft.records import Completion, Problem, Rewrite
from offsft.rewrite.cascade import CascadeSettings, rewrite
from offsft.rewrite.solved import SolvedProblems
from offsft.rewrite.stages import check_stages, open_stages
from offsft.rewrite.stages.base import Observer, Stage
from offsft.runtime.metrics import REWRITES_SERVED

from .errors import ApiError
from .middleware import Note
from .schemas import RewriteAnswer, RewriteProblem
from .served_models import Served
from .settings import Limits


class Metered:
    """A sampler that counts its tokens on a request's note, also those of unfinished requests where they are known."""

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

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float] | None:
        self._count(len(prompt_ids) + len(response_ids), 0)
        return await self._sampler.score(prompt_ids, response_ids)

    def _count(self, prompt: int, completion: int) -> None:
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self._note.prompt_tokens += prompt
        self._note.completion_tokens += completion


@dataclass(frozen=True)
class Rewriter:
    """State shared by all requests: the recipe's cascade, the verifier, the limits."""

    settings: CascadeSettings
    verifier: Verifier
    limits: Limits
    solved: SolvedProblems | None = None
    """Solved problems that stages may show: those of the recipe's run, never other requests'."""
    _opened: "weakref.WeakKeyDictionary[Served, Mapping[str, Stage[Any]]]" = field(
        default_factory=weakref.WeakKeyDictionary, init=False, compare=False
    )
    """The stages of each served model, closed once it is no longer served."""

    def __post_init__(self) -> None:
        check_stages(self.settings.stages)

    async def prepare(self, body: RewriteProblem, served: Served) -> "Prepared":
        """Check a request, before it waits for its turn and before any answer begins.

        Raises:
            ApiError: 422 for a problem that cannot be used or exceeds a limit.
        """
        settings = self._settings_for(body)
        if served.row_tokens is not None:
            settings = replace(settings, context_tokens=min(settings.context_tokens, served.row_tokens))
        prompts, sampler = await served.open()
        # In a thread: tokenizing a long text takes longer than other requests should wait.
        problem = await asyncio.to_thread(self._problem, body, prompts, settings)
        return Prepared(body, served, settings, prompts, sampler, problem)

    async def rewrite(
        self, asked: "Prepared", note: Note, *, queued_s: float = 0.0, observer: Observer | None = None
    ) -> RewriteAnswer:
        """Rewrite one problem and return the answer.

        Raises:
            EngineError: the engine died or does not answer.
        """
        started_s = time.monotonic()
        metered = Metered(asked.sampler, note)
        try:
            done = await rewrite(
                asked.problem,
                prompts=asked.prompts,
                stages=self._open_stages(asked.served, asked.prompts),
                sampler=metered,
                verifier=self.verifier,
                settings=asked.settings,
                observer=observer,
            )
        except Exception:
            REWRITES_SERVED.add(source="failed")
            raise
        REWRITES_SERVED.add(source=done.source)
        texts = asked.body.keep_attempts or observer is not None
        return RewriteAnswer.model_validate(
            {
                "id": note.request_id,
                "model": asked.served.name,
                "revision": asked.served.revision,
                **_answer(done, asked.prompts, texts),
                "usage": {
                    "prompt_tokens": metered.prompt_tokens,
                    "completion_tokens": metered.completion_tokens,
                    "total_tokens": metered.prompt_tokens + metered.completion_tokens,
                },
                "timing": {"seconds": time.monotonic() - started_s + queued_s, "queued_seconds": queued_s},
            }
        )

    def _open_stages(self, served: Served, prompts: Prompts) -> Mapping[str, Stage[Any]]:
        if served not in self._opened:
            self._opened[served] = opened = open_stages(self.settings.stages, prompts, self.solved)
            weakref.finalize(served, _close_all, list(opened.values()))
        return self._opened[served]

    def stages(self, body: RewriteProblem) -> list[str]:
        """Names of the stages that a request asks for.

        Raises:
            ApiError: one is unknown, or they are out of order.
        """
        known = [stage.name for stage in self.settings.stages]
        stages = known if body.stages is None else body.stages
        if stages != [stage for stage in known if stage in stages]:
            raise ApiError(
                422,
                f"stages must each be named once, in the order {', '.join(known)}",
                code="invalid_value",
                param="stages",
            )
        return stages

    def _settings_for(self, body: RewriteProblem) -> CascadeSettings:
        asked, waves, base = self.stages(body), body.waves or {}, self.settings
        sampling = {stage.name: stage for stage in base.stages if isinstance(stage, WavesConfig)}
        unknown = sorted(waves.keys() - sampling.keys())
        if unknown:
            figure = f"waves names {', '.join(unknown)}, and the stages that sample are {', '.join(sampling)}"
            raise ApiError(422, figure, code="invalid_value", param="waves")
        stages = [_with_waves(stage, waves) for stage in base.stages if _runs(stage, asked, waves)]
        samples = sum(sum(stage.waves) for stage in stages if isinstance(stage, WavesConfig))
        if samples > self.limits.samples:
            raise _beyond("the waves ask for", samples, "samples", self.limits.samples, "waves")
        temperature = base.sampling.temperature if body.temperature is None else body.temperature
        return replace(
            base, stages=tuple(stages), sampling=replace(base.sampling, temperature=temperature), keep_text=True
        )

    def _problem(self, body: RewriteProblem, prompts: Prompts, settings: CascadeSettings) -> Problem:
        """The problem, as the batch job's intake would build it."""
        row = {"problem": body.problem, "solution": body.solution, "answer": body.answer}
        fields = Fields(answer=None if body.answer is None else "answer")
        parsed = parse(RawRow("request", 1, json.dumps(row).encode()), "own", fields)
        if isinstance(parsed, Rejected):
            detail = parsed.detail
            if parsed.reason is Reason.NO_ANSWER:
                detail = "the solution ends in no \\boxed{...}; give the `answer` beside it"
            REWRITES_SERVED.add(source="rejected")
            raise ApiError(422, detail, code=str(parsed.reason))
        counts = (
            ("problem", parsed.problem, self.limits.problem_tokens),
            ("solution", parsed.solution, self.limits.solution_tokens),
        )
        for name, text, limit in counts:
            tokens = prompts.count(text)
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


@dataclass(frozen=True)
class Prepared:
    """A request that has passed every check, with what its rewriting needs."""

    body: RewriteProblem
    served: Served
    settings: CascadeSettings
    prompts: Prompts
    sampler: Sampler
    problem: Problem

    @property
    def sequences(self) -> int:
        """The most sequences that it samples at once; 1 if it only scores."""
        return max(
            [1, *(wave for stage in self.settings.stages if isinstance(stage, WavesConfig) for wave in stage.waves)]
        )

    @property
    def tokens(self) -> int:
        """The most tokens that it samples, and one for the scoring."""
        waves = [sum(stage.waves) for stage in self.settings.stages if isinstance(stage, WavesConfig)]
        return 1 + sum(waves) * self.settings.sampling.max_tokens


def _runs(stage: StageConfig, asked: list[str], waves: Mapping[str, list[int]]) -> bool:
    """Whether a request runs a stage; the expert solution always runs as the last resort, no waves mean no stage."""
    return isinstance(stage, ExpertStage) or (stage.name in asked and waves.get(stage.name) != [])


def _with_waves(stage: StageConfig, waves: Mapping[str, list[int]]) -> StageConfig:
    return stage.model_copy(update={"waves": waves[stage.name]}) if stage.name in waves else stage


def _close_all(stages: list[Stage[Any]]) -> None:
    for stage in stages:
        stage.close()


def _beyond(what: str, figure: int, unit: str, limit: int, param: str) -> ApiError:
    return ApiError(422, f"{what} {figure} {unit}, and the limit is {limit}", code="beyond_limit", param=param)


def _answer(done: Rewrite, prompts: Prompts, texts: bool) -> dict[str, Any]:
    """The body of the answer for a rewrite."""
    # Served engines always score.
    assert done.policy_logprobs is not None
    assert done.expert_logprobs is not None
    assert done.expert_mean_logprob is not None
    behavior = done.behavior_logprobs or [None] * len(done.response_ids)
    kept = list(zip(prompts.pieces(done.response_ids), done.policy_logprobs, behavior, strict=True))
    expert = list(zip(prompts.pieces(done.expert_ids), done.expert_logprobs, strict=True))
    mean = done.mean_logprob
    return {
        "source": done.source,
        "response": done.response,
        "answer": done.answer,
        "details": done.details,
        "attempts": [attempt_told(attempt, text=texts) for attempt in done.attempts],
        "tokens": [{"text": t, "policy_logprob": p, "behavior_logprob": b} for t, p, b in kept],
        "expert_tokens": [{"text": t, "policy_logprob": p} for t, p in expert],
        "behavior_logprobs": done.behavior_logprobs,
        "policy_logprobs": done.policy_logprobs,
        "gap": {
            "kept_mean_logprob": mean,
            "expert_mean_logprob": done.expert_mean_logprob,
            "closed": None if mean is None else mean - done.expert_mean_logprob,
        },
        "measures": done.measures,
    }


def attempt_told(attempt: Any, *, text: bool) -> dict[str, Any]:
    """An attempt as it is sent to the client."""
    told = {"stage": attempt.stage, "outcome": attempt.outcome, "tokens": attempt.tokens, "why": attempt.why}
    told["opinions"] = opinion_rows(attempt.opinions)
    return told | {"text": attempt.text} if text else told
