"""The base class of the cascade's stages, and the waves that all sampling stages share.

A stage defines the prompt and which correct answers to refuse. Sampling in waves and choosing are the same for all stages
and are implemented here, in `solve_in_waves`; judging is in `offsft.rewrite.judging`. A stage serves hundreds of problems at once, so it keeps no
state per problem between calls.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from offsft.config.guards import GuardConfig
from offsft.config.stages import StageConfig, WavesConfig
from offsft.measures.spans import Decode
from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams, Verifier
from offsft.records import Attempt, Completion, Measures, Outcome, Problem, Rewrite
from offsft.rewrite.giving_up import PassRate
from offsft.rewrite.judging import Judged, Judging
from offsft.rewrite.picking import SCORED, Pick, pick_one
from offsft.rewrite.solved import SolvedProblems

Settings = TypeVar("Settings", bound=StageConfig)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A stage's prompt for one wave: token ids, and details for the row if a response to it is kept."""

    ids: list[int]
    details: Mapping[str, Any] | None = None
    """Written to the row's column `details` as JSON, for example `{"shown_share": 0.5}`."""
    shown: str = ""
    """What the prompt shows beside the problem and the expert's solution, such as another model's hint: repeating it is no
    repetition of the prompt's own example."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A stage's reason for asking nothing; recorded as an attempt without tokens."""

    reason: str
    outcome: Outcome = Outcome.SKIPPED


@dataclass(frozen=True, slots=True)
class Kept:
    """A response chosen for a problem.

    `logprobs` are those it was sampled with, or None if unknown; `on_policy` says whether they are also those of the
    policy on the plain prompt. `policy_logprobs` and `measures` are what judging has found already.
    """

    text: str
    ids: list[int]
    logprobs: list[float] | None
    on_policy: bool = False
    details: Mapping[str, Any] | None = None
    policy_logprobs: list[float] | None = None
    measures: Measures | None = None


class Observer(Protocol):
    """Receives the cascade's events as they happen."""

    def wave(self, stage: str, n: int) -> None:
        """Called when a stage requests `n` samples."""
        ...

    def attempt(self, attempt: Attempt) -> None:
        """Called when a sample was judged; `attempt` has its text."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One problem on its way through the stages, and everything that they need.

    `sampling` and `context_tokens` bound each sample; `plain_ids` is the plain prompt and `expert_ids` the expert
    response, as token ids; `decode` gives the text of ids. `attempts` collects the samples of all stages, `own` those
    finished ones that the policy wrote on the plain prompt.
    """

    problem: Problem
    plain_ids: list[int]
    expert_ids: list[int]
    policy: Sampler
    verifier: Verifier
    sampling: SamplingParams
    context_tokens: int
    pick: Pick
    guards: GuardConfig
    decode: Decode
    give_up: float = 0.0
    observer: Observer | None = None
    attempts: list[Attempt] = field(default_factory=list)
    own: list[Attempt] = field(default_factory=list)

    def record(self, attempt: Attempt) -> None:
        """Add an attempt that was not sampled, and notify the observer."""
        self.attempts.append(attempt)
        if self.observer is not None:
            self.observer.attempt(attempt)


class Stage(Generic[Settings]):
    """Base of all stages; a custom stage derives from it and implements `prompt`.

    One instance is made per process with an engine, with the recipe's settings for the stage.
    """

    config: ClassVar[type[StageConfig]] = WavesConfig
    """The settings that the stage reads from the recipe: WavesConfig, or a class derived from it with more fields."""
    sampler: Sampler | None = None
    """The sampler to use; None is the policy, whose engine samples for all stages."""
    solved: SolvedProblems | None = None
    """The problems that the run has solved so far; None where there is no run."""

    def __init__(self, settings: Settings, prompts: Prompts) -> None:
        self.settings = settings
        self.prompts = prompts
        self.pass_rate = PassRate()

    @property
    def name(self) -> str:
        return self.settings.name

    async def prompt(self, problem: Problem, attempts: Sequence[Attempt], wave: int) -> Prompt | Skipped | None:
        """The prompt for a wave (from 0); None or a counted reason to end the stage.

        `attempts` are the problem's samples so far, from all stages, each with its text and outcome.
        """
        raise NotImplementedError

    def refuses(self, completion: Completion, problem: Problem) -> Outcome | None:
        """The reason to refuse a correct response, or None to accept it."""
        return None

    def finished(self, rewrite: Rewrite) -> None:
        """Called with the result of each problem that this process finishes, from any stage."""

    def close(self) -> None:
        """Release the stage's resources, such as connections."""

    async def solve(self, task: Task, waves: Sequence[int]) -> Kept | None:
        """The stage's response for a problem, or None if it finds none."""
        return await solve_in_waves(self, task, waves)


async def solve_in_waves(stage: Stage[Any], task: Task, waves: Sequence[int]) -> Kept | None:
    """Sample in waves until one contains a correct response; every sample is added to `task.attempts`."""
    sampler = stage.sampler or task.policy
    failures = 0
    for number, n in enumerate(waves):
        if failures and (chance := stage.pass_rate.after(failures)) < task.give_up:
            why = f"after {failures} samples that failed, the next would be correct with a chance of {chance:.3f}"
            task.record(Attempt(stage.name, Outcome.GIVEN_UP, 0, why=why))
            return None
        prompt = await stage.prompt(task.problem, task.attempts, number)
        if isinstance(prompt, Skipped):
            task.record(Attempt(stage.name, prompt.outcome, 0, why=prompt.reason))
            return None
        if prompt is None:
            return None
        room = task.context_tokens - len(prompt.ids)
        if room < 1:
            task.record(Attempt(stage.name, Outcome.TOO_LONG, 0))
            return None
        if task.observer is not None:
            task.observer.wave(stage.name, n)
        params = replace(task.sampling, max_tokens=min(task.sampling.max_tokens, room))
        completions = await sampler.sample(prompt.ids, n=n, params=params)
        judging = _judging(stage, task, prompt)
        judged = await asyncio.gather(*(_judge(judging, task, completion) for completion in completions))
        task.attempts.extend(each.attempt for each in judged)
        if judging.from_policy and not judging.hinted:
            task.own.extend(each.attempt for each in judged if each.completion.finished)
        correct = [each for each in judged if each.attempt.outcome is Outcome.CORRECT]
        failures += len(judged)
        if number == 0:
            stage.pass_rate.add_first_wave(len(judged), len(correct))
        if correct:
            chosen = pick_one(correct, task.pick, seed=f"{task.problem.id}/{stage.name}/{number}")
            said = chosen.completion
            return Kept(
                said.text,
                said.token_ids,
                said.logprobs,
                judging.on_policy,
                prompt.details,
                chosen.policy_logprobs,
                chosen.measures,
            )
    return None


def _judging(stage: Stage[Any], task: Task, prompt: Prompt) -> Judging:
    """How a wave's samples are judged: with guards if they saw more than the plain prompt, or another model wrote them."""
    hinted = prompt.ids != task.plain_ids or stage.sampler is not None
    as_policy = stage.sampler is None and task.sampling.undistorted
    return Judging(
        stage=stage.name,
        problem=task.problem,
        verifier=task.verifier,
        refuses=stage.refuses,
        policy=task.policy,
        plain_ids=task.plain_ids,
        expert_ids=task.expert_ids,
        guards=task.guards,
        split=stage.prompts.parts,
        decode=task.decode,
        prompt=task.decode(prompt.ids) if hinted and task.guards.leaks else "",
        shown=prompt.shown,
        hinted=hinted,
        on_policy=as_policy and not hinted,
        from_policy=as_policy,
        scored=task.pick in SCORED,
    )


async def _judge(judging: Judging, task: Task, completion: Completion) -> Judged:
    """Judge a completion; the observer is notified at once, not when the slowest of the wave is judged."""
    judged = await judging.judge(completion)
    if task.observer is not None:
        task.observer.attempt(judged.attempt)
    return judged
