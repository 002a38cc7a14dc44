"""What the cascade and the evaluation ask of an engine and of a verifier."""

from dataclasses import dataclass
from typing import Protocol

from offsft.records import Completion, Outcome, Problem


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample. At `temperature=1, top_p=1` the sampling distribution is the policy itself; temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


class Sampler(Protocol):
    """An engine that holds one policy. Token ids in, token ids and log-probabilities (nats) out."""

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        """`n` independent completions of one prompt."""
        ...

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        """The policy's log-probability of each response token, given the prompt and the tokens before it."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, and why: the final answer as it was found in the response (None where none was), where, and a reason.

    `where` is a word or two (`box`, `last line`), `why` one line; both may be empty.
    """

    outcome: Outcome
    extracted: str | None = None
    where: str = ""
    why: str = ""


class Judge(Protocol):
    """Judges one response to one problem; may be slow, hungry or raise: it runs in processes that can be killed.

    An instance is pickled once to each process.
    """

    def __call__(self, response: str, problem: Problem) -> Verdict: ...


class Verifier(Protocol):
    """Judges one response to one problem. Never raises for what a response contains."""

    async def __call__(self, response: str, problem: Problem) -> Verdict: ...
