"""What waves save against a fixed number of samples: `python -m benchmarks.rewrite_cost [--json] [--problems 300]`.

Both sides rewrite the same problems with the same scripted engine: 32 answers at once, each taking time in proportion to its
tokens, whose number is log-normal around 1,000. The k-th sample of a problem is the same on both sides. `waves` is the
cascade itself, `[1, 1, 2, 4]` for self and for guided. `fixed` is what one writes without it: one job that samples eight for every
problem, then a second job that samples eight with the solution in view for those without a correct one.

A problem's pass rate is drawn from a Beta distribution with a + b = 1 around the mean; a guided sample passes with its cube root (0.1: 0.46).
`token_ratio` and `wall_ratio` are waves over fixed, by mean pass rate; `accepted` are the problems with a kept sample on each side. `give_up` is the
cascade with `rewrite.give_up` against itself without: the share of tokens it saves, and of kept problems it loses.
"""

import argparse
import asyncio
import json
import random
import re
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import PromptConfig, RewriteConfig
from offsft.prompts import Prompts, load_prompts
from offsft.protocols import SamplingParams, Verdict
from offsft.records import Completion, Outcome, Problem
from offsft.rewrite.cascade import cascade_settings, rewrite
from offsft.rewrite.stages import open_stages

PASS_RATES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
GIVE_UP = (0.02, 0.05, 0.1)
SAMPLES = 8
WAVES = [1, 1, 2, 4]
SEQUENCES = 32
IN_PROGRESS = 3 * SEQUENCES
"""Problems in progress at once, as `engine.concurrent_commits` unset gives them."""
TOKENS = 1_000
_LOG_SPREAD = 0.5


@dataclass
class ScriptedEngine:
    """Answers whose time, length and correctness depend on the problem, the stage and the sample's number alone."""

    prompts: Prompts
    mean: float
    answer_s: float
    tokens: int = 0
    _asked: dict[tuple[int, bool], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(SEQUENCES)

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        text = self.prompts.text(prompt_ids)
        found = re.search(r"What is (\d+) \+ 0", text)
        assert found is not None, text
        key = int(found[1]), "one way to work it out" in text
        first = self._asked.get(key, 0)
        self._asked[key] = first + n
        return list(await asyncio.gather(*(self._answer(*key, first + number) for number in range(n))))

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        return [-0.5] * len(response_ids)

    async def _answer(self, problem: int, guided: bool, number: int) -> Completion:
        passes = random.Random(f"{problem}").betavariate(self.mean, 1 - self.mean)
        draw = random.Random(f"{problem}/{guided}/{number}")
        right = draw.random() < (passes ** (1 / 3) if guided else passes)
        length = max(1, round(TOKENS * draw.lognormvariate(-(_LOG_SPREAD**2) / 2, _LOG_SPREAD)))
        async with self._free:
            await asyncio.sleep(self.answer_s * length / TOKENS)
        self.tokens += length
        return Completion(f"\\boxed{{{problem if right else problem + 1}}}", [65] * length, [-0.2] * length, "stop")


async def verify(response: str, problem: Problem) -> Verdict:
    return Verdict(Outcome.CORRECT if response == f"\\boxed{{{problem.answer}}}" else Outcome.WRONG, None)


@dataclass(frozen=True)
class Cost:
    tokens: int
    wall_s: float
    accepted: frozenset[str]


async def run_waves(engine: ScriptedEngine, problems: list[Problem], give_up: float = 0.0) -> Cost:
    """The cascade over all problems, as an engine's actor runs it."""
    stages = [{"kind": "self", "waves": WAVES}, {"kind": "guided", "waves": WAVES}, {"kind": "expert"}]
    config = RewriteConfig.model_validate({"stages": stages, "guards": {"enabled": False}, "give_up": give_up})
    settings, opened = cascade_settings(config, 100 * TOKENS), open_stages(config.stages, engine.prompts)
    room, accepted = asyncio.Semaphore(IN_PROGRESS), set()

    async def one(problem: Problem) -> None:
        async with room:
            done = await rewrite(
                problem, prompts=engine.prompts, stages=opened, sampler=engine, verifier=verify, settings=settings
            )
        if done.source != "expert":
            accepted.add(problem.id)

    started_s = time.monotonic()
    await asyncio.gather(*map(one, problems))
    return Cost(engine.tokens, time.monotonic() - started_s, frozenset(accepted))


async def run_fixed(engine: ScriptedEngine, problems: list[Problem]) -> Cost:
    """Two jobs, one after the other: eight samples for every problem, then eight guided ones for those that failed."""
    started_s = time.monotonic()
    left, accepted = problems, set()
    for prompt in (engine.prompts.plain, engine.prompts.guided):
        answers = await asyncio.gather(
            *(engine.sample(prompt(each), n=SAMPLES, params=SamplingParams(8 * TOKENS)) for each in left)
        )
        for problem, samples in zip(left, answers, strict=True):
            verdicts = [await verify(sample.text, problem) for sample in samples]
            if any(verdict.outcome is Outcome.CORRECT for verdict in verdicts):
                accepted.add(problem.id)
        left = [problem for problem in left if problem.id not in accepted]
    return Cost(engine.tokens, time.monotonic() - started_s, frozenset(accepted))


def measure(prompts: Prompts, problems: list[Problem], rates: list[float], answer_s: float) -> dict[str, Any]:
    """All figures, by pass rate."""
    found: dict[str, Any] = {"token_ratio": {}, "wall_ratio": {}, "accepted": {}, "give_up": {}}
    for rate in rates:
        waves = asyncio.run(run_waves(ScriptedEngine(prompts, rate, answer_s), problems))
        fixed = asyncio.run(run_fixed(ScriptedEngine(prompts, rate, answer_s), problems))
        found["token_ratio"][rate] = round(waves.tokens / fixed.tokens, 3)
        found["wall_ratio"][rate] = round(waves.wall_s / fixed.wall_s, 3)
        found["accepted"][rate] = {"waves": len(waves.accepted), "fixed": len(fixed.accepted)}
        for bound in GIVE_UP:
            early = asyncio.run(run_waves(ScriptedEngine(prompts, rate, 0.0), problems, bound))
            found["give_up"].setdefault(bound, {})[rate] = {
                "tokens_saved": round(1 - early.tokens / waves.tokens, 3),
                "problems_lost": round(1 - len(early.accepted) / len(waves.accepted), 3),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--rates", type=float, nargs="+", default=list(PASS_RATES), help="mean pass rates")
    parser.add_argument("--answer-s", type=float, default=0.05, help="seconds of an answer of 1,000 tokens")
    arguments = parser.parse_args()
    problems = [
        Problem(str(i), f"What is {i} + 0?", f"{i} + 0 = \\boxed{{{i}}}", str(i)) for i in range(arguments.problems)
    ]
    with tempfile.TemporaryDirectory() as folder:
        byte_tokenizer().save_pretrained(folder)
        prompts = load_prompts(folder, None, PromptConfig(), "auto")
        found = measure(prompts, problems, arguments.rates, arguments.answer_s)
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


if __name__ == "__main__":
    main()
