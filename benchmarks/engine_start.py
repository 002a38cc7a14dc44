"""Time, memory and rate of an engine on a CPU whose core runs the model, against vLLM's default of a process for each.

`python -m benchmarks.engine_start [--repeats 2] [--at-once 1] [--wait active|passive] [--json]`

Each engine is in a process of its own, the two kinds by turns, with the embedded model in float32. `--at-once 2` starts
two engines together and gives their rates summed: how engines share cores. `--wait` is what OpenMP's threads do while
they wait for one another. Figures are medians; start and rate in wall-clock time, `cpu` of all of an engine's processes.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

_PROMPT_TOKENS = 60
_ROWS = 32
_NEW_TOKENS = 64
_KINDS = ("one", "two")
"""Processes of an engine below its owner."""


def measure(kind: str) -> dict[str, float]:
    """Start one engine here, and sample with it."""
    started_s = time.monotonic()
    import psutil

    from offsft.config import EngineConfig
    from offsft.demo.model import embedded_model
    from offsft.inference.engines import vllm
    from offsft.inference.engines.base import EngineSetup
    from offsft.protocols import SamplingParams

    if kind == "two":
        vllm._start_on_cpu = _start_by_default
    config = EngineConfig(max_sequences=_ROWS, kv_cache_gib=1)
    setup = EngineSetup(str(embedded_model()), None, "float32", False, 512, 0, True, config)
    sampler = vllm.VllmSampler(setup, ())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]

    def cpu_s() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    async def sample() -> int:
        prompts = [[(7 * row + place) % 2000 + 10 for place in range(_PROMPT_TOKENS)] for row in range(_ROWS)]
        params = SamplingParams(_NEW_TOKENS)
        done = await asyncio.gather(*(sampler.sample(prompt, n=1, params=params) for prompt in prompts))
        return sum(len(each.token_ids) for completions in done for each in completions)

    found = {"start_s": time.monotonic() - started_s, "start_cpu_s": cpu_s()}
    asyncio.run(sample())  # the first batch compiles
    before_s, cpu_before_s = time.monotonic(), cpu_s()
    tokens = asyncio.run(sample())
    found |= {
        "tokens_per_s": tokens / (time.monotonic() - before_s),
        "cpu_ms_per_token": 1e3 * (cpu_s() - cpu_before_s) / tokens,
    }
    found["memory_gib"] = sum(process.memory_full_info().uss for process in processes) / 2**30
    sampler.close()
    return found


def _start_by_default(arguments: Any) -> Any:
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments.distributed_executor_backend = "mp"
    return AsyncLLM.from_engine_args(arguments)


def _together(kind: str, at_once: int, wait: str | None) -> dict[str, float]:
    """Engines started at the same time: their rates summed, the mean of their other figures."""
    environment = os.environ | ({"OMP_WAIT_POLICY": wait} if wait else {})
    command = [sys.executable, "-m", "benchmarks.engine_start", "--one", kind]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(at_once)
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return {name: sum(each[name] for each in found) / (1 if name == "tokens_per_s" else at_once) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2, help="engines of each kind")
    parser.add_argument("--at-once", type=int, default=1, help="engines that run side by side")
    parser.add_argument("--wait", choices=("active", "passive"), help="OMP_WAIT_POLICY; unset: the library's own")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--one", choices=_KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in _KINDS}
    for _ in range(arguments.repeats):
        for kind in _KINDS:
            runs[kind].append(_together(kind, arguments.at_once, arguments.wait))
    medians = {
        kind: {name: statistics.median(run[name] for run in found) for name in found[0]} for kind, found in runs.items()
    }
    ratios = {f"{name}_ratio": medians["one"][name] / medians["two"][name] for name in medians["one"]}
    result = {"at_once": arguments.at_once, "wait": arguments.wait, "repeats": arguments.repeats, **medians, **ratios}
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{'':18}{'one process':>14}{'two (vLLM)':>14}{'ratio':>8}")
    for name in medians["one"]:
        print(f"{name:18}{medians['one'][name]:14.2f}{medians['two'][name]:14.2f}{ratios[f'{name}_ratio']:8.2f}")


if __name__ == "__main__":
    main()
