"""The interfaces of engines and verifiers that the cascade and the evaluation use."""

from dataclasses import dataclass
from typing import Protocol

from offsft.records import Completion, Opinion, Outcome, Problem


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling settings. At `temperature=1, top_p=1` the policy itself is sampled from; temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0

    @property
    def undistorted(self) -> bool:
        """Whether the model's own distribution is sampled from, so that as-sampled log-probs are the model's."""
        return self.temperature == 1.0 and self.top_p == 1.0


class Sampler(Protocol):
    """An engine that holds one policy. Token ids in, token ids and log-probabilities (nats) out."""

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        """`n` independent completions of one prompt."""
        ...

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float] | None:
        """The policy's log-probability of each response token, given the prompt and the tokens before it.

        None from an engine that cannot score.
        """
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, with the final answer as found in the response (None if none was), its place, and a reason.

    `where` is a word or two (`box`, `last line`), `why` one line; both may be empty. `opinions` are those of a chain's
    verifiers, in order; empty for a verifier alone.
    """

    outcome: Outcome
    extracted: str | None = None
    where: str = ""
    why: str = ""
    opinions: tuple[Opinion, ...] = ()


class Judge(Protocol):
    """Judges one response to one problem; may be slow, use much memory or raise: it runs in killable processes.

    An instance is pickled once per process.
    """

    def __call__(self, response: str, problem: Problem) -> Verdict: ...


class Verifier(Protocol):
    """Judges one response to one problem. Never raises because of a response's content."""

    async def __call__(self, response: str, problem: Problem) -> Verdict: ...
