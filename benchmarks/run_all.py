"""Runs the benchmarks of speed in a size for two cores, about half an hour: `python -m benchmarks.run_all [NAME ...]`.

Each one's figures go to `benchmarks/results/DATE-NAME.json`, with the command and the hardware. A benchmark that fails is named at the end.
With `--gpu`, those of training in sizes for one GPU of 80 GB or more, a few minutes; the card is a part of the files' names.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
COMMANDS = {
    "fused_head": ["--rounds", "2", "--shape", "1024,896,152064", "--shape", "1024,576,49152"],
    "train_step": ["--rounds", "3", "--rows", "6"],
    "rewrite_cost": ["--problems", "150", "--answer-s", "0.5", "--rates", "0.05", "0.2", "0.5", "0.8", "0.95"],
    "engine_start": ["--repeats", "3"],
    "rewrite_throughput": ["--rounds", "2", "--problems", "48"],
}
"""Arguments by benchmark."""
_SIDES = ["--variants", "offsft_split", "trl_liger"]
GPU_COMMANDS = {
    "fused_head": [
        *["--rounds", "5", "--chunk-tokens", "220", "4096"],
        *["--shape", "4096,896,151936", "--shape", "16384,896,151936"],
    ],
    "train_step": [
        *["--rounds", "4", "--shape", "qwen2-0.5b", "--rows", "128", "--profile"],
        *["--micro-batch-tokens", "8192", "--trl-rows", "16", *_SIDES, "trl_float32"],
    ],
    "train_step-1.5b": [
        *["--rounds", "3", "--shape", "qwen2-1.5b", "--rows", "64", "--head-products", "split"],
        *["--micro-batch-tokens", "8192", "--trl-rows", "16", "--variants", "trl_liger"],
    ],
}
"""The same on a GPU; what follows a hyphen tells two runs of one benchmark apart."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(COMMANDS)}; none: all")
    parser.add_argument("--gpu", action="store_true", help=f"{', '.join(GPU_COMMANDS)}, in sizes for a GPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results (benchmarks/results)")
    arguments = parser.parse_args()
    commands = GPU_COMMANDS if arguments.gpu else COMMANDS
    unknown = set(arguments.names) - set(commands)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(commands)}")
    failed = [name for name in arguments.names or commands if not run(name, commands[name], arguments.out)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str, arguments: list[str], out: Path) -> bool:
    """Run one benchmark, keep its figures, and print them; returns whether it ran to its end."""
    command = [sys.executable, "-m", f"benchmarks.{name.partition('-')[0]}", "--json", *arguments]
    before = os.getloadavg()[0]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.stderr.write(f"{name}: {ran.stderr[-2000:]}\n")
        return False
    found = json.loads(ran.stdout.strip().splitlines()[-1])
    today = datetime.date.today().isoformat()
    out.mkdir(exist_ok=True)
    said = f"python -m {' '.join(command[2:])}"
    machine: dict[str, Any] = hardware() | {"load_before": round(before, 1)}
    kept = {"command": said, "date": today, "hardware": machine, "found": found}
    card = machine["gpu"].split()[1].lower() if "gpu" in machine else None
    (out / f"{'-'.join(filter(None, (today, name, card)))}.json").write_text(
        json.dumps(kept, indent=1) + "\n", encoding="utf-8"
    )
    print(f"{name}: {json.dumps(found)}", flush=True)
    return True


def hardware() -> dict[str, Any]:
    """The processor or card as the system names it, its cores, and whether it has instructions for bfloat16."""
    from offsft.config.native import native_dtype

    found: dict[str, Any] = {"cores": os.cpu_count(), "processor": _processor(), "native": native_dtype(gpus=False)}
    try:
        import torch
    except ModuleNotFoundError:
        return found
    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    family = [
        line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "cpu family", "model\t"))
    ]
    return " ".join(family[:3]) or platform.processor()


if __name__ == "__main__":
    main()
