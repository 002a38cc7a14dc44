"""Runs the benchmarks of speed in a size for two cores, about half an hour: `python -m benchmarks.run_all [NAME ...]`.

Each one's figures go to `benchmarks/results/DATE-NAME.json`, with the command and the hardware. A benchmark that fails is named at the end.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(COMMANDS)}; none: all")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(COMMANDS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(COMMANDS)}")
    failed = [name for name in arguments.names or COMMANDS if not run(name)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run(name: str) -> bool:
    """Run one benchmark, keep its figures, and print them; returns whether it ran to its end."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", *COMMANDS[name]]
    before = os.getloadavg()[0]
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        sys.stderr.write(f"{name}: {ran.stderr[-2000:]}\n")
        return False
    found = json.loads(ran.stdout.strip().splitlines()[-1])
    today = datetime.date.today().isoformat()
    RESULTS.mkdir(exist_ok=True)
    said = f"python -m {' '.join(command[2:])}"
    kept = {"command": said, "date": today, "hardware": hardware() | {"load_before": round(before, 1)}, "found": found}
    (RESULTS / f"{today}-{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
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
        found["gpu"] = torch.cuda.get_device_name()
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
