"""The records that flow through offsft, and the closed sets of values they use.

A problem becomes one rewrite by way of several attempts; each attempt is one completion and its outcome.
Log-probabilities are natural logarithms (nats) of single tokens.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Source(StrEnum):
    """Where the response that is kept for a problem came from. Also names the cascade's stages."""

    SELF = "self"
    GUIDED = "guided"
    EXPERT = "expert"


class Outcome(StrEnum):
    """What became of one attempt at a problem."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """No final answer could be found in the response."""
    TRUNCATED = "truncated"
    """The response hit the token limit; it is not judged, even if it happens to hold the answer."""
    LEAKED = "leaked"
    """A guided response that speaks of the expert solution it was shown, so it does not stand alone."""
    BARE = "bare"
    """A guided response much shorter than the expert solution it was shown: the answer without its working."""
    TIMEOUT = "timeout"
    """Verification took longer than its limit and was killed."""
    ERROR = "error"
    """Verification failed, for instance by running out of memory."""
    TOO_LONG = "too_long"
    """The stage was not sampled: its prompt leaves no room for a response in the model's context."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One valid row of the input.

    `id` is a hash of the problem's text, `solution` the expert's worked solution, cleaned of its data set's
    marks and ending in a boxed answer; `answer` the reference answer that responses are verified against.
    """

    id: str
    problem: str
    solution: str
    answer: str
    check: dict[str, Any] = field(default_factory=dict, hash=False)
    """What the verifier needs beside the answer (docs/verifiers.md), as JSON knows it: a tolerance, choices, tests."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Problem":
        """The problem of a table's row, which holds `check` as JSON text, null or (from older runs) not at all."""
        check = row.get("check")
        return cls(row["id"], row["problem"], row["solution"], row["answer"], json.loads(check) if check else {})

    @property
    def check_text(self) -> str | None:
        """`check` as a table holds it: JSON text, None where it is empty."""
        return json.dumps(self.check, ensure_ascii=False) if self.check else None


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response: `len(token_ids) == len(logprobs)`, the end-of-turn token included when it was sampled.

    `logprobs` are those of the distribution that was really sampled from.
    """

    text: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    """`stop` when the model ended its turn; anything else counts as truncated."""

    def __post_init__(self) -> None:
        assert len(self.token_ids) == len(self.logprobs), (len(self.token_ids), len(self.logprobs))

    @property
    def finished(self) -> bool:
        return self.finish_reason == "stop"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One completion, judged. `text` is kept only where the recipe asks for it."""

    stage: Source
    outcome: Outcome
    tokens: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """The result for one problem, as the training reads it.

    Invariants: `response_ids` ends with the end-of-turn token; `policy_logprobs` has one entry for each of them,
    under the policy on the plain prompt; so has `behavior_logprobs` (as sampled), which is None for expert rows.
    `expert_ids` and `expert_logprobs` are the same of the expert's solution, whatever was kept.
    """

    id: str
    problem: str
    answer: str
    solution: str
    source: Source
    response: str
    prompt_ids: list[int]
    response_ids: list[int]
    behavior_logprobs: list[float] | None
    policy_logprobs: list[float]
    expert_ids: list[int]
    expert_logprobs: list[float]
    expert_mean_logprob: float
    attempts: list[Attempt]
    generated_tokens: int

    def __post_init__(self) -> None:
        assert len(self.response_ids) == len(self.policy_logprobs), self.id
        assert len(self.expert_ids) == len(self.expert_logprobs), self.id
        assert (self.behavior_logprobs is None) == (self.source is Source.EXPERT), self.id

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability (nats a token) of the kept response under the policy on the plain prompt."""
        return math.fsum(self.policy_logprobs) / len(self.policy_logprobs)
