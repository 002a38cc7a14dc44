"""Judges rows of responses and answers one by one, to try a verifier on your own data."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from offsft.config import VerifyConfig
from offsft.errors import ConfigError
from offsft.protocols import Verdict, Verifier
from offsft.records import Outcome, Problem
from offsft.verify import open_verifier

_IN_FLIGHT = 64
"""Rows that are judged concurrently; their verdicts come in the order of the rows."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row: the verifier's kind or chain (None: as in the settings), a response, and the problem that it is judged by."""

    id: Any
    kind: str | tuple[str, ...] | None
    response: str
    problem: Problem


def read_case(line: str, number: int) -> Case:
    """Read the case of a line; its `id` defaults to the line's number.

    Raises:
        ValueError: the line is not a valid case; the message says what is wrong, in one line.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"line {number} is not valid JSON: it is nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f'line {number} is not an object such as {{"response": ..., "answer": ...}}')
    if "response" not in row:
        raise ValueError(f"line {number} has no field 'response'; it has {', '.join(map(str, row)) or 'no fields'}")
    check, kind, answer = row.get("check"), row.get("verifier"), row.get("answer")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    for name, value, kinds, wanted in (
        ("response", row["response"], str, "a text"),
        ("answer", answer if answer is not None else "", str, "a text or a number"),
        ("check", check if check is not None else {}, dict, "an object"),
        ("verifier", kind if kind is not None else "", str | list, "the name of a verifier or a list of names"),
    ):
        if not isinstance(value, kinds):
            raise ValueError(f"line {number}: the field {name!r} is not {wanted}")
    problem = Problem(str(number), str(row.get("problem") or ""), "", str(answer or ""), check or {})
    kind = tuple(map(str, kind)) if isinstance(kind, list) else kind
    return Case(row.get("id", number), kind or None, row["response"], problem)


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one line; an error that says what is wrong if it is not a valid case (`is_case` is false)."""

    id: Any
    verdict: Verdict
    is_case: bool = True

    @property
    def row(self) -> dict[str, Any]:
        """`id`, `outcome`, `extracted`, `where` and `why`, and for a chain `opinions`, ready for JSON."""
        verdict = self.verdict
        said = {
            "outcome": str(verdict.outcome),
            "extracted": verdict.extracted,
            "where": verdict.where,
            "why": verdict.why,
        }
        opinions = [asdict(opinion) for opinion in verdict.opinions]
        return {"id": self.id, **said, **({"opinions": opinions} if opinions else {})}


async def judge_lines(lines: Callable[[], str], settings: VerifyConfig) -> AsyncIterator[Judged]:
    """Judge each line that `lines` returns, in order, until it returns ""; `lines` may block.

    Raises:
        ConfigError: a verifier cannot be opened because a program or a setting is missing.
    """
    verifiers: dict[str | tuple[str, ...], Verifier] = {}
    waiting: deque[asyncio.Task[Judged]] = deque()
    async with AsyncExitStack() as opened:

        async def verifier_of(kind: str | tuple[str, ...], number: int) -> Verifier:
            if kind not in verifiers:
                of_kind = settings if kind == settings.kind else _with_kind(settings, kind, number)
                verifiers[kind] = await opened.enter_async_context(open_verifier(of_kind))
            return verifiers[kind]

        number = 0
        while line := await asyncio.to_thread(lines):
            number += 1
            if not line.strip():
                continue
            try:
                case = read_case(line, number)
                verifier = await verifier_of(case.kind or settings.kind, number)
            except ValueError as error:
                waiting.append(asyncio.create_task(_refused(line, str(error))))
            else:
                waiting.append(asyncio.create_task(_judged(case, verifier)))
            while waiting and (len(waiting) >= _IN_FLIGHT or waiting[0].done()):
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()


def _with_kind(settings: VerifyConfig, kind: str | tuple[str, ...], number: int) -> VerifyConfig:
    try:
        return settings.of_kind(kind)
    except (ConfigError, ValidationError) as error:
        raise ValueError(f"line {number}: {str(error).replace('verify.kind', 'verifier')}") from None


async def _judged(case: Case, verifier: Verifier) -> Judged:
    return Judged(case.id, await verifier(case.response, case.problem))


async def _refused(line: str, why: str) -> Judged:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    return Judged(row.get("id") if isinstance(row, dict) else None, Verdict(Outcome.ERROR, why=why), is_case=False)
