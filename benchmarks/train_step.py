"""Training steps against TRL's `SFTTrainer(loss_type="dft")`: `python -m benchmarks.train_step [--json] [--rounds 3]`.

Both train a model of SmolLM-135M's shape with random weights on the same random rows, whose lengths are those of GSM8K's
rows in that model's tokens. Each side is a process of its own that waits while the other steps, so that both meet the same
machine. A round is one step of each; the first one warms up and does not count.

`speed_ratio_trl` is TRL's median seconds a step over ours, `memory_ratio_trl` our peak memory over TRL's: the process's
resident memory on a CPU, allocated memory on a GPU. `matrix_rate_share` is the rate of our step's matrix products, as
their count of operations over the whole step's seconds, as a share of the rate of one large product on this machine in the same type;
it is measured after each step. Recomputation is off on both sides (TRL's default is on).

On a GPU there are more sides: ours with the head's products split (`train.head_products`), and with `--variants` TRL with Liger's
layers (`trl_liger`), and TRL with float32 weights under bfloat16 autocast (`trl_float32`). TRL in bfloat16 otherwise
trains bfloat16 weights by themselves, while ours have float32 copies and float32 sums of gradients: what it saves in memory it
loses in updates that round to nothing. `matrix_rate_share` is there the model-FLOP utilisation, attention's scores and
recomputed products not counted, of the card's measured rate. TRL's micro-batches have `--trl-rows` rows, padded to the longest.
`--profile` adds the kernels on which our step spends its time.

TRL comes with `pip install --no-deps trl==1.16.0`, next to accelerate and datasets; without it its ratios are left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from benchmarks.train_inputs import SHAPES, Rows, matrix_rate, operations, random_model, random_rows, wait

_ROWS = {"cpu": 8, "cuda": 128}
_MICRO_BATCH_TOKENS = {"cpu": 1024, "cuda": 16384}
_SHAPE = {"cpu": "smollm-135m", "cuda": "qwen2-0.5b"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=3, help="measured steps of each side (default 3)")
    parser.add_argument("--rows", type=int, help="rows of a step (default 8, on a GPU 128)")
    parser.add_argument("--micro-batch-tokens", type=int, help="of ours (default 1024, on a GPU 16384)")
    parser.add_argument("--trl-rows", type=int, help="rows of TRL's micro-batches (default: all)")
    parser.add_argument("--chunk-tokens", type=int, help="train.head_chunk_tokens of ours")
    parser.add_argument("--head-products", choices=["float32", "split"], default="float32", help="train.head_products")
    parser.add_argument("--dtype", choices=["auto", "bfloat16", "float32"], default="auto")
    parser.add_argument("--shape", choices=SHAPES, help="default smollm-135m, on a GPU qwen2-0.5b")
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), help="more sides (default on a GPU: split)")
    parser.add_argument("--profile", action="store_true", help="list the kernels of a step of ours, after the others")
    parser.add_argument("--side", choices=[*SIDES, *VARIANTS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = _device()
    arguments.rows = arguments.rows or _ROWS[device]
    arguments.micro_batch_tokens = arguments.micro_batch_tokens or _MICRO_BATCH_TOKENS[device]
    arguments.shape = arguments.shape or _SHAPE[device]
    if arguments.variants is None:
        arguments.variants = ["offsft_split"] if device == "cuda" else []
    if arguments.side:
        (SIDES | VARIANTS)[arguments.side](arguments)
        return
    found = compare(arguments)
    print(json.dumps(found) if arguments.json else "\n".join(f"{key}: {value}" for key, value in found.items()))


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Step both sides in turn; the figures of each, and their ratios."""
    names = [*SIDES, *arguments.variants]
    sides = {name: _Side(name) for name in names if not name.startswith("trl") or find_spec("trl")}
    try:
        for side in sides.values():
            side.begin()
        for _ in range(1 + arguments.rounds):
            for side in sides.values():
                side.step()
        kernels = sides["offsft"].profile() if arguments.profile else None
    finally:
        for side in sides.values():
            side.end()
    ours = sides["offsft"].figures()
    found: dict[str, Any] = {
        "speed_ratio_trl": None,
        "memory_ratio_trl": None,
        "matrix_rate_share": ours.pop("matrix_rate_share"),
    }
    if "trl" in sides:
        theirs = sides["trl"].figures()
        if _device() == "cpu":
            theirs.pop("matrix_rate_share")
        found["speed_ratio_trl"] = round(theirs["step_s"] / ours["step_s"], 2)
        found["memory_ratio_trl"] = round(ours["peak_gib"] / theirs["peak_gib"], 3)
        found["trl"] = theirs
    else:
        found["left_out"] = "TRL is not installed: pip install --no-deps trl==1.16.0"
    shape = {"shape": arguments.shape, "rows": arguments.rows, "rounds": arguments.rounds}
    found |= {"offsft": ours, **shape, "cores": os.cpu_count()}
    if _device() == "cuda":
        found |= {"micro_batch_tokens": arguments.micro_batch_tokens, "trl_rows": arguments.trl_rows}
        found["variants"] = {name: sides[name].figures() for name in arguments.variants if name in sides}
    return found | ({"profile": kernels} if kernels else {})


class _Side:
    """One side's process, and what it said after each step."""

    def __init__(self, name: str) -> None:
        self._said: list[dict[str, float]] = []
        command = [sys.executable, "-m", "benchmarks.train_step", "--side", name, *sys.argv[1:]]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the process runs
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def begin(self) -> None:
        """Wait until the model is loaded."""
        self._read()

    def step(self) -> None:
        self._said.append(self._ask())

    def profile(self) -> dict[str, float]:
        """Instead of the last step, after which the process ends."""
        return self._ask()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _ask(self) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._log.seek(0)
        raise SystemExit(self._log.read().decode()[-3000:])

    def figures(self) -> dict[str, Any]:
        """Medians over the rounds, without the first."""
        rounds = self._said[1:]
        step_s = statistics.median(each["step_s"] for each in rounds)
        return {
            "step_s": round(step_s, 3),
            "tokens_per_s": round(rounds[-1]["tokens"] / step_s, 1),
            "peak_gib": round(max(each["peak"] for each in self._said) / 2**30, 2),
            "dtype": rounds[-1]["dtype"],
            "matrix_rate_share": round(statistics.median(each["matrix_rate_share"] for each in rounds), 3),
        }


def _run_offsft(arguments: argparse.Namespace, head_products: Literal["float32", "split"] | None = None) -> None:
    import torch

    from offsft.config import TrainConfig
    from offsft.config.objective import Dft
    from offsft.train.batching import BatchPlan
    from offsft.train.engine import start_engine
    from offsft.train.rows import Row
    from offsft.train.worker import train_step

    dtype, device = _dtype(arguments), _device()
    settings = TrainConfig(
        objective=Dft(),
        global_batch=arguments.rows,
        micro_batch_tokens=arguments.micro_batch_tokens,
        max_tokens=arguments.micro_batch_tokens,
        gpus_per_worker=int(device == "cuda"),
        head_products=head_products or arguments.head_products,
        head_chunk_tokens=arguments.chunk_tokens,
        learning_rate=1e-5,
        epochs=2 + arguments.rounds,
    )
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    with tempfile.NamedTemporaryFile() as file:
        backend = "nccl" if device == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, init_method=f"file://{file.name}.group", rank=0, world_size=1)
        engine = start_engine(random_model(arguments.shape, dtype), settings, dtype)
    rows = [Row(str(number), "self", prompt, response) for number, (prompt, response) in enumerate(_rows(arguments))]
    lengths = [row.tokens for row in rows]
    plan = BatchPlan(lengths, arguments.rows, arguments.micro_batch_tokens, 1, seed=0, epochs=settings.epochs)
    print("{}", flush=True)
    for step in range(plan.steps):
        sys.stdin.readline()
        if arguments.profile and step == plan.steps - 1:
            print(
                json.dumps(_profiled(lambda step=step: train_step(engine, rows, plan, step, 0, settings))), flush=True
            )
            return
        _measure(arguments, lambda step=step: train_step(engine, rows, plan, step, 0, settings))


def _profiled(work: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds of the operations or kernels that take most time, then those of all of them, and of the step."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = _device() == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as found:
        started_s = time.monotonic()
        work()
        wait(_device())
        step_s = time.monotonic() - started_s
    times = {}
    for each in found.key_averages():
        spent_us = each.self_device_time_total if on_gpu else each.self_cpu_time_total
        # On a GPU the kernels alone: the operations that started them have the same time again.
        if not on_gpu or "CUDA" in str(each.device_type):
            times[each.key[:90]] = times.get(each.key[:90], 0.0) + spent_us / 1000
    most = sorted(times.items(), key=lambda item: -item[1])[:25]
    return {key: round(spent, 2) for key, spent in [*most, ("all", sum(times.values())), ("step", 1000 * step_s)]}


def _run_trl(arguments: argparse.Namespace, *, liger: bool = False, weights: str | None = None) -> None:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]

    from benchmarks.byte_tokenizer import byte_tokenizer

    rows, dtype = _rows(arguments), _dtype(arguments)
    steps = 2 + arguments.rounds
    trl_rows = arguments.trl_rows or arguments.rows
    data = {
        "input_ids": [prompt + response for prompt, response in rows] * steps,
        "completion_mask": [[0] * len(prompt) + [1] * len(response) for prompt, response in rows] * steps,
    }

    class Turns(TrainerCallback):
        """Waits for its turn before a step, and says how long the step took."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            print("{}", flush=True)
            self._wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wait(_device())
            _say(arguments, time.monotonic() - self._started_s)
            self._wait()

        def _wait(self) -> None:
            sys.stdin.readline()
            wait(_device())
            self._started_s = time.monotonic()

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            loss_type="dft",
            per_device_train_batch_size=trl_rows,
            gradient_accumulation_steps=arguments.rows // trl_rows,
            use_liger_kernel=liger,
            max_steps=steps,
            max_length=None,
            gradient_checkpointing=False,
            bf16=dtype == "bfloat16",
            use_cpu=_device() == "cpu",
            learning_rate=1e-5,
            logging_steps=10**6,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=0,
        )
        model = random_model(arguments.shape, weights or dtype)
        SFTTrainer(
            model=model,
            args=config,
            train_dataset=Dataset.from_dict(data),
            processing_class=byte_tokenizer(),
            callbacks=[Turns()],
        ).train()


SIDES: dict[str, Callable[[argparse.Namespace], None]] = {"offsft": _run_offsft, "trl": _run_trl}
VARIANTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "offsft_split": partial(_run_offsft, head_products="split"),
    "trl_liger": partial(_run_trl, liger=True),
    "trl_float32": partial(_run_trl, weights="float32"),
}


def _measure(arguments: argparse.Namespace, work: Any) -> None:
    wait(_device())
    started_s = time.monotonic()
    work()
    wait(_device())
    _say(arguments, time.monotonic() - started_s)


def _say(arguments: argparse.Namespace, step_s: float) -> None:
    """Print what one step took, and how near its products came to the rate that the machine has now."""
    rows = _rows(arguments)
    tokens = sum(len(prompt) + len(response) for prompt, response in rows)
    peak = _peak_bytes()
    share = operations(arguments.shape, rows) / step_s / matrix_rate(_dtype(arguments), _device())
    said = {"step_s": step_s, "tokens": tokens, "peak": peak, "dtype": _dtype(arguments), "matrix_rate_share": share}
    print(json.dumps(said), flush=True)


def _rows(arguments: argparse.Namespace) -> Rows:
    return random_rows(arguments.shape, arguments.rows, arguments.micro_batch_tokens // 2)


def _dtype(arguments: argparse.Namespace) -> str:
    from offsft.config.native import native_dtype

    return native_dtype(gpus=_device() == "cuda") if arguments.dtype == "auto" else cast(str, arguments.dtype)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _peak_bytes() -> int:
    """Peak memory: allocated on the GPU, else resident of this process (Linux)."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


if __name__ == "__main__":
    main()
