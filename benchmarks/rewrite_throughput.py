"""Rewriting against bare vLLM: `python -m benchmarks.rewrite_throughput [--json] [--problems 128] [--rounds 3]`.

The pipeline is the real rewriting job (Ray Data, cascade, verification, scoring, Parquet) with one real engine and the embedded
model; a recorder around the engine keeps every request. vLLM alone then gets the same requests, all at once, in one
call of `vllm.LLM.generate`, with the same arguments. `ratio` is the pipeline's sampled tokens per second over vLLM's, the
median of the rounds, which alternate; the start of the engine and of Ray is left out on both sides.

`where` says what the pipeline's time was: before the first request, in the middle, and after the last answer; and how many sequences were
in progress on average. Each side is a process of its own.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offsft.config import Recipe
from offsft.config.loading import load
from offsft.inference.engines.base import EngineSetup, engine_setup
from offsft.prompts import Prompts
from offsft.protocols import SamplingParams
from offsft.records import Completion

MAX_TOKENS = 64
_CONTEXT_TOKENS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("settings", nargs="*", help="settings of the recipe, as key=value")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, folder = arguments.side
        found = SIDES[side](Path(folder), recipe_of(Path(folder), arguments.problems, arguments.settings))
        print(json.dumps(found))
        return
    found = compare(arguments)
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


def recipe_of(folder: Path, problems: int, settings: list[str]) -> Recipe:
    return load(
        None,
        [
            f"run={folder / 'run'}",
            "data.path=generated",
            f"data.generated_problems={problems}",
            f"model.context_tokens={_CONTEXT_TOKENS}",
            f"rewrite.max_tokens={MAX_TOKENS}",
            "rewrite.stages.self.waves=[2]",
            "rewrite.stages.guided.waves=[2]",
            *settings,
        ],
    )


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both sides in turn; medians over the rounds."""
    rounds = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="offsft-throughput-") as folder:
            rounds.append({side: _in_own_process(side, folder) for side in SIDES})
    ratios = [each["pipeline"]["tokens_per_s"] / each["vllm"]["tokens_per_s"] for each in rounds]
    middle = rounds[ratios.index(statistics.median_low(ratios))]
    return {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "problems": arguments.problems,
        **middle,
    }


def _in_own_process(side: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.rewrite_throughput", *sys.argv[1:], "--side", side, folder]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{side} failed:\n{ran.stdout[-1000:]}{ran.stderr[-3000:]}")
    return json.loads(ran.stdout.strip().splitlines()[-1])


def run_pipeline(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """The rewriting job, from the engine's readiness to the end of the job."""
    from offsft.models import resolve_model
    from offsft.rewrite.run import run_rewrite
    from offsft.runtime.console import Console
    from offsft.runtime.session import ray_session
    from offsft.storage.run_folder import RunFolder

    model, run = resolve_model(recipe.model), RunFolder(recipe.run)
    run.open(recipe)
    console = Console()
    with ray_session(recipe.cluster):
        recorder = RecordedEngine(_setup(recipe, model), str(folder / "requests.jsonl"))
        run_rewrite(recipe, run, model, console, sampler_factory=recorder)
        ended_s = time.time()
    started, *requests = _read(folder)
    seconds = ended_s - started["ready_s"]
    tokens = sum(sum(each["tokens"]) for each in requests)
    first, last = min(each["begun_s"] for each in requests), max(each["ended_s"] for each in requests)
    busy = sum((each["ended_s"] - each["begun_s"]) * max(1, len(each["tokens"])) for each in requests)
    return {
        "tokens_per_s": tokens / seconds,
        "tokens": tokens,
        "seconds": seconds,
        "where": {
            "before_the_first_request_s": first - started["ready_s"],
            "requests_s": last - first,
            "after_the_last_answer_s": ended_s - last,
            "sequences_in_progress": busy / (last - first),
        },
    }


def run_vllm(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """The same requests in one call."""
    from offsft.inference.engines.vllm import engine_arguments, environment, use_all_cores
    from offsft.models import resolve_model
    from offsft.prompts import load_prompts
    from offsft.runtime.compiled_code import prepare_compiling

    setup = _setup(recipe, resolve_model(recipe.model))
    os.environ.update(environment(setup.engine))
    use_all_cores()
    prepare_compiling(gpus=setup.engine.gpus > 0)
    import vllm

    prompts = load_prompts(setup.model, setup.revision, recipe.prompt, recipe.model.thinking)
    engine = vllm.LLM(model=setup.model, disable_log_stats=True, **engine_arguments(setup))
    ids, params = [], []
    for request in _read(folder)[1:]:
        ids.append({"prompt_token_ids": request["ids"]})
        if request["n"]:
            sampling = {"n": request["n"], "logprobs": 0, "stop_token_ids": [prompts.end_of_turn], "temperature": 1.0}
            params.append(vllm.SamplingParams(max_tokens=request["max_tokens"], **sampling))
        else:
            params.append(vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False))
    sampled = [each.prompt_logprobs is None for each in params]
    engine.generate(ids[:2], params[:2], use_tqdm=False)  # its sampling compiles at the first request
    started_s = time.time()
    outputs = engine.generate(ids, params, use_tqdm=False)
    seconds = time.time() - started_s
    tokens = sum(
        len(sequence.token_ids)
        for output, counts in zip(outputs, sampled, strict=True)
        if counts
        for sequence in output.outputs
    )
    return {"tokens_per_s": tokens / seconds, "tokens": tokens, "seconds": seconds}


SIDES = {"pipeline": run_pipeline, "vllm": run_vllm}


def _setup(recipe: Recipe, model: str) -> EngineSetup:
    return engine_setup(recipe, model, raw_distribution=True)


def _read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "requests.jsonl").read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class RecordedEngine:
    """Opens an engine, and writes when it was ready and what it was asked."""

    setup: EngineSetup
    path: str

    def __call__(self, prompts: Prompts) -> "Recorder":
        from offsft.inference.engines import open_engine

        sampler = Recorder(open_engine(self.setup, prompts), self.path)
        asyncio.run(sampler.warm_up(prompts))
        sampler.write(ready_s=time.time())
        return sampler


class Recorder:
    """A sampler that writes a line for each request that it passes on."""

    def __init__(self, engine: Any, path: str) -> None:
        self._engine = engine
        self._file = Path(path).open("w", buffering=1)  # noqa: SIM115  # open as long as the engine

    async def warm_up(self, prompts: Prompts) -> None:
        """One answer: vLLM's sampling compiles at the first request."""
        await self._engine.sample([prompts.end_of_turn], n=1, params=SamplingParams(2))

    @property
    def alive(self) -> bool:
        return self._engine.alive

    def close(self) -> None:
        self._file.close()
        self._engine.close()

    def write(self, **line: Any) -> None:
        self._file.write(json.dumps(line) + "\n")

    async def sample(self, prompt_ids: list[int], *, n: int, params: SamplingParams) -> list[Completion]:
        begun_s = time.time()
        found = await self._engine.sample(prompt_ids, n=n, params=params)
        tokens = [len(each.token_ids) for each in found]
        self.write(
            ids=prompt_ids, n=n, max_tokens=params.max_tokens, tokens=tokens, begun_s=begun_s, ended_s=time.time()
        )
        return found

    async def score(self, prompt_ids: list[int], response_ids: list[int]) -> list[float]:
        begun_s = time.time()
        found = await self._engine.score(prompt_ids, response_ids)
        self.write(ids=[*prompt_ids, *response_ids], n=0, tokens=[], begun_s=begun_s, ended_s=time.time())
        return found


if __name__ == "__main__":
    main()
