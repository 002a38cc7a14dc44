"""The driver that `benchmarks.chaos` starts and kills: `python -m benchmarks.chaos_job RUN PROBLEMS`."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.prompts import Prompts
from offsft.protocols import Sampler, SamplingParams
from offsft.records import Completion

_MODEL = "tokenizer"
_DELAY_S = 0.4
"""Delay of one answer, in seconds."""


def prepare(folder: Path) -> None:
    """Save the tokenizer for the jobs of all runs in the folder."""
    byte_tokenizer().save_pretrained(folder / _MODEL)


def script(prompt: str, _: int) -> str:
    """A right or wrong answer by the problem's number alone, so that every call gives the same."""
    found = re.search(r"What is (\d+) \+ 0\?", prompt)
    assert found is not None, prompt
    number = int(found[1])
    right = number % 3 == 0 or (number % 3 == 1 and "one way to work it out" in prompt)
    return f"It is \\boxed{{{number if right else number + 1}}}."


class ChaosSampler:
    """Scripted answers from an engine that dies on request, and that records the number of tokens it samples."""

    def __init__(self, sampler: Sampler, run: Path) -> None:
        self._sampler = sampler
        self._run = run
        self._paid = os.open(run / "paid", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.alive = True

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        self._die_if_told()
        completions = await self._sampler.sample(prompt_ids, n=n, params=params)
        self._die_if_told()
        os.write(self._paid, f"{sum(len(completion.token_ids) for completion in completions)}\n".encode())
        return completions

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float] | None:
        self._die_if_told()
        return await self._sampler.score(prompt_ids, response_ids)

    def _die_if_told(self) -> None:
        word = self._run / "kill-an-engine"
        if self.alive and word.exists():
            try:
                word.unlink()
                self.alive = False
            except FileNotFoundError:  # another engine took it first
                pass
        if not self.alive:
            raise RuntimeError("the engine is dead")


class Factory:
    """Makes the samplers of one run."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def __call__(self, prompts: Prompts) -> Any:
        decode = prompts.text
        return ChaosSampler(ScriptedSampler(script, prompts.response, decode, delay_s=_DELAY_S), self._run)


def main() -> None:
    run, problems = Path(sys.argv[1]), int(sys.argv[2])
    from offsft.config.loading import load
    from offsft.rewrite.run import run_rewrite
    from offsft.runtime.console import Console
    from offsft.runtime.session import ray_session
    from offsft.storage.run_folder import RunFolder
    from offsft.storage.run_lock import lock_run

    rows = run / "problems.jsonl"
    if not rows.exists():
        partial = rows.with_suffix(".partial")
        partial.write_text(
            "".join(
                f'{{"problem": "What is {i} + 0?", "solution": "{i} + 0 = \\\\boxed{{{i}}}"}}\n'
                for i in range(problems)
            )
        )
        partial.replace(rows)
    recipe = load(
        None,
        [
            f"run={run}",
            f"data.path={rows}",
            "rewrite.commit_problems=4",
            "rewrite.stages.self.waves=[1]",
            "rewrite.stages.guided.waves=[1]",
            "rewrite.max_tokens=60",
            "engine.actors=2",
            "engine.concurrent_commits=4",
            "verify.timeout_s=60",
            "rewrite.guards={support: null, first_support: null, bare: false}",
            # With this many random kills, three engines die by chance with the same problem alone.
            "engine.poison_tries=1000",
            "engine.start_tries=1000",
        ],
    )
    folder = RunFolder(recipe.run)
    with lock_run(folder.path):
        folder.open(recipe)
        with ray_session(recipe.cluster):
            run_rewrite(recipe, folder, str(run.parent / _MODEL), Console(), sampler_factory=Factory(run))


if __name__ == "__main__":
    main()
