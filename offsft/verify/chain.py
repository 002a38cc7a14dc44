"""A chain of verifiers: rules first, and a second opinion only where they say no.

Rules hold many correct answers for wrong that are only written in an unusual way (38 % of rule-based "wrong" in arXiv
2505.14625). A model that judges every response would cost far more, and can be talked into a yes.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

from offsft.protocols import Verdict, Verifier
from offsft.records import Opinion, Outcome, Problem

SAYS_NO = frozenset({Outcome.WRONG, Outcome.NO_ANSWER})
"""Outcomes that the next verifier is asked about. A timeout or an error is no opinion, and stays: text that breaks the
rules must not get past them by that."""


@dataclass(slots=True)
class SecondOpinions:
    """Verdicts of a chain: where a further verifier was `asked`, where it `turned` a no into a yes, where it `failed`."""

    asked: int = 0
    turned: int = 0
    failed: int = 0

    def add(self, opinions: Sequence[Mapping[str, Any]] | None) -> None:
        """Add one verdict's opinions, as rows of a table; None for a verifier alone."""
        if opinions is None or len(opinions) < 2:
            return
        outcomes = [each["outcome"] for each in opinions]
        self.asked += 1
        self.turned += outcomes[-1] == Outcome.CORRECT
        self.failed += any(outcome in (Outcome.TIMEOUT, Outcome.ERROR) for outcome in outcomes[1:])


class OpenVerifier(Verifier, Protocol):
    """A verifier that holds resources: use `async with`, or `close()`."""

    async def __aenter__(self) -> "OpenVerifier": ...

    async def __aexit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


class VerifierChain:
    """Asks each verifier in order until one does not say no; a verdict has the opinions of all that were asked.

    `correct` from any of them is the verdict. Otherwise the first one's stands, also where a later one fails.
    """

    def __init__(self, verifiers: Sequence[tuple[str, OpenVerifier]]) -> None:
        """`verifiers` are kinds with their opened verifiers."""
        self._verifiers = verifiers

    async def __aenter__(self) -> "VerifierChain":
        return self

    async def __aexit__(self, *_: object) -> None:
        async with AsyncExitStack() as stack:
            for _kind, verifier in self._verifiers:
                stack.push_async_exit(verifier.__aexit__)

    def close(self) -> None:
        """Close all of them."""
        for _, verifier in self._verifiers:
            verifier.close()

    async def __call__(self, response: str, problem: Problem) -> Verdict:
        verdicts: list[Verdict] = []
        opinions: list[Opinion] = []
        for kind, verifier in self._verifiers:
            verdicts.append(await verifier(response, problem))
            opinions.append(Opinion(kind, verdicts[-1].outcome, verdicts[-1].why))
            if verdicts[0].outcome not in SAYS_NO or verdicts[-1].outcome is Outcome.CORRECT:
                break
        chosen = verdicts[-1] if verdicts[-1].outcome is Outcome.CORRECT else verdicts[0]
        return replace(chosen, extracted=chosen.extracted or verdicts[0].extracted, opinions=tuple(opinions))
