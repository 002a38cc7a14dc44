"""The records that flow through offsft, and the closed sets of values they use.

A problem becomes one rewrite through several attempts; each attempt is one completion and its outcome.
Log-probabilities are natural logarithms (nats) of single tokens.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

EXPERT = "expert"
"""The source of demonstrations: of rows that keep them, and of expert solutions outside the stages."""
UNSOLVED = "unsolved"
"""The source of rows without a response: no stage solved the problem, and `rewrite.expert` is `none`."""


class Outcome(StrEnum):
    """The outcome of one attempt at a problem."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """No final answer could be found in the response."""
    TRUNCATED = "truncated"
    """The response hit the token limit; it is not judged, even if it contains the answer."""
    LEAKED = "leaked"
    """A guided response that mentions the expert solution it was shown, so it does not stand alone."""
    BARE = "bare"
    """A guided response that states the answer it was shown without its working, or much shorter than it."""
    UNSUPPORTED = "unsupported"
    """A guided response whose answer the policy would not write at its place without the solution in view."""
    FALSE_STEP = "false_step"
    """A guided response with an equation between numbers that does not hold."""
    COPIED = "copied"
    """A guided response that repeats the expert solution it was shown nearly word for word."""
    TIMEOUT = "timeout"
    """Verification took longer than its limit and was killed."""
    ERROR = "error"
    """Verification failed, for instance by running out of memory."""
    TOO_LONG = "too_long"
    """The stage was not sampled: its prompt leaves no room for a response in the model's context."""
    SKIPPED = "skipped"
    """The stage was not sampled: it has nothing to show for this problem, such as no solved example yet."""
    GIVEN_UP = "given_up"
    """The stage asked for no further sample: after those that failed, one would hardly be correct (`rewrite.give_up`)."""
    UNANSWERED = "unanswered"
    """The stage was not sampled: the teacher gave no usable text."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One valid row of the input.

    `id` is a hash of the problem's text, `answer` the reference answer that responses are verified against. `solution`
    is the expert's worked solution, cleaned of its data set's marks and ending in a boxed answer.
    """

    id: str
    problem: str
    solution: str
    answer: str
    check: dict[str, Any] = field(default_factory=dict, hash=False)
    """The verifier's inputs in addition to the answer (docs/verifiers.md), JSON-like: a tolerance, choices, tests."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Problem":
        """The problem of a table's row, which has `check` as JSON text, as null or (from older runs) not at all."""
        check = row.get("check")
        return cls(row["id"], row["problem"], row["solution"], row["answer"], json.loads(check) if check else {})

    @property
    def check_text(self) -> str | None:
        """`check` as stored in a table: JSON text, None if it is empty."""
        return json.dumps(self.check, ensure_ascii=False) if self.check else None


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response: `len(token_ids) == len(logprobs)`, including the end-of-turn token if it was sampled.

    `logprobs` are under the distribution actually sampled from; None if the engine does not return them.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float] | None
    finish_reason: str
    """`stop` when the model ended its turn; anything else counts as truncated."""

    def __post_init__(self) -> None:
        if self.logprobs is not None:
            assert len(self.token_ids) == len(self.logprobs), (len(self.token_ids), len(self.logprobs))

    @property
    def finished(self) -> bool:
        return self.finish_reason == "stop"


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one verifier of a chain says of a response: its kind, the outcome, and why in one line."""

    verifier: str
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One judged completion. `text` is kept only if the recipe asks for it.

    `why` is a guard's reason to refuse it, in a few words: the equation that does not hold, the phrase that leaks.
    `opinions` are those of the verifiers of a chain, in order; empty for a verifier alone.
    """

    stage: str
    outcome: Outcome
    tokens: int
    text: str | None = None
    why: str | None = None
    opinions: tuple[Opinion, ...] = ()


@dataclass(frozen=True, slots=True)
class Measures:
    """What seeing a solution did to a response (`offsft.measures`). None: not measured, or there is nothing to measure.

    Log-probs are in nats, lengths in tokens.
    """

    support_first: float | None = None
    """Log-prob under the policy on the plain prompt of the answer's value, at the first place that states it."""
    support_last: float | None = None
    """The same in the last mark."""
    holding_steps: int | None = None
    """Equations between numbers that hold."""
    false_steps: int | None = None
    """Equations that do not hold."""
    steps_not_judged: int | None = None
    """Equations that could not be judged: names in them, units of several kinds, notation that is not read."""
    copied_tokens: int | None = None
    """Longest run of tokens that also stands in the expert's solution."""
    copied_share: float | None = None
    """Share of the response's n-grams that also stand in the expert's solution."""
    expert_length: float | None = None
    """Length of the response as a share of the expert solution's."""
    own_length: float | None = None
    """Length as a share of the mean of the policy's own finished samples of the problem."""
    doubt: float | None = None
    """Words of hesitation and self-correction per 1,000 tokens."""
    own_doubt: float | None = None
    """The same of the policy's own finished samples of the problem."""
    hint_lift: float | None = None
    """How much likelier the most surprising passage is with the solution in view, in nats."""
    leak: str | None = None
    """The phrase that mentions what was shown, or repeats the prompt's example."""
    bare: bool | None = None
    """Whether it states its answer without a derivation."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The result for one problem, as training reads it.

    `source` is the name of the stage that gave the response, or UNSOLVED if none did; then the response is empty.
    Invariants: `response_ids` ends with the end-of-turn token; `policy_logprobs` has one entry per response token,
    under the policy on the plain prompt. So has `behavior_logprobs` (as sampled), which is None for demonstrations.
    `expert_ids` and `expert_logprobs` are the same for the expert's solution, whatever was kept. Log-probs that the
    engine does not return are None: `behavior_logprobs` if it returns none for samples, the others if it cannot score.
    """

    id: str
    problem: str
    answer: str
    solution: str
    source: str
    response: str
    prompt_ids: list[int]
    response_ids: list[int]
    behavior_logprobs: list[float] | None
    policy_logprobs: list[float] | None
    expert_ids: list[int]
    expert_logprobs: list[float] | None
    expert_mean_logprob: float | None
    attempts: list[Attempt]
    generated_tokens: int
    measures: Measures | None = None
    """Measures of the kept response; None if there is none."""
    details: Mapping[str, Any] | None = None
    """The stage's record of how it asked for the response, JSON-like: for example the share it showed."""

    def __post_init__(self) -> None:
        response, expert = len(self.response_ids), len(self.expert_ids)
        assert self.policy_logprobs is None or len(self.policy_logprobs) == response, self.id
        assert self.expert_logprobs is None or len(self.expert_logprobs) == expert, self.id
        assert self.behavior_logprobs is None or (self.source != EXPERT and len(self.behavior_logprobs) == response), (
            self.id
        )
        assert (self.source == UNSOLVED) == (not self.response_ids), self.id

    @property
    def mean_logprob(self) -> float | None:
        """Mean log-prob (nats per token) of the kept response on the plain prompt; None if it is empty or unscored."""
        if not self.policy_logprobs:
            return None
        return math.fsum(self.policy_logprobs) / len(self.policy_logprobs)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check of a recipe found before anything was started."""

    about: str
    """Its subject, such as `template` or `lengths`."""
    stops: bool
    """Whether the work would fail or be wrong, or whether this only is to be known."""
    text: str
    """What was found, where, and what to do."""
