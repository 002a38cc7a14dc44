"""Memory and time of the fused head against full logits: `python -m benchmarks.fused_head [--json] [--shape T,D,V ...]`.

Memory is the peak beyond the inputs and their gradients, forward and backward, as the operating system counts it.
`memory_ratio` is the fused head's memory over the size of the full float32 logits, T x V x 4 bytes (full logits
need a multiple of that: `full_memory_ratio`). `time_ratio` is the fused head's seconds over those of full logits, each
the best of its rounds, which alternate in one process.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch

from offsft.config.objective import Dft
from offsft.losses.fused_head import fused_head
from offsft.losses.objectives import Tokens

SHAPES = ((4096, 896, 152064), (1024, 896, 152064), (1024, 576, 49152))
"""Tokens, hidden size, vocabulary size; the first shape gives `memory_ratio` and `time_ratio`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each implementation (default 2)")
    parser.add_argument("--shape", action="append", metavar="T,D,V", help="tokens, hidden size, words; may be repeated")
    arguments = parser.parse_args()
    shapes = [tuple(map(int, shape.split(","))) for shape in arguments.shape or []] or SHAPES
    results = [measure(*shape, rounds=arguments.rounds) for shape in shapes]
    if arguments.json:
        headline = {key: results[0][key] for key in ("memory_ratio", "time_ratio")}
        print(json.dumps(headline | {"threads": torch.get_num_threads(), "shapes": results}))
        return
    for result in results:
        print("  ".join(f"{key} {value:.3g}" for key, value in result.items()))


def measure(tokens: int, dim: int, words: int, *, rounds: int) -> dict[str, float]:
    """Peak memory and best time of both heads, at one shape, on random data."""
    torch.manual_seed(0)
    hidden_TD = torch.randn(tokens, dim, requires_grad=True)
    weight_VD = (torch.randn(words, dim) * dim**-0.5).requires_grad_()
    targets_T = torch.randint(words, (tokens,))
    both = {"fused": _run_fused, "full": _full}
    seconds: dict[str, list[float]] = {name: [] for name in both}
    peaks: dict[str, list[int]] = {name: [] for name in both}
    for _ in range(rounds):
        for name, loss in both.items():
            hidden_TD.grad = weight_VD.grad = None
            peak, spent = _measure(lambda loss=loss: loss(hidden_TD, weight_VD, targets_T).backward())
            peaks[name].append(peak - 4 * (hidden_TD.numel() + weight_VD.numel()))
            seconds[name].append(spent)
    logits = 4 * tokens * words
    return {
        "tokens": tokens,
        "dim": dim,
        "words": words,
        "memory_ratio": max(peaks["fused"]) / logits,
        "full_memory_ratio": min(peaks["full"]) / logits,
        "time_ratio": min(seconds["fused"]) / min(seconds["full"]),
        "fused_s": min(seconds["fused"]),
        "full_s": min(seconds["full"]),
    }


def _run_fused(hidden_TD: torch.Tensor, weight_VD: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
    tokens = Tokens(torch.ones(len(targets_T)), torch.zeros(len(targets_T), dtype=torch.long))
    return fused_head(hidden_TD, weight_VD, targets_T, Dft(), tokens).loss


def _full(hidden_TD: torch.Tensor, weight_VD: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
    logprobs_T = -torch.nn.functional.cross_entropy(hidden_TD @ weight_VD.T, targets_T, reduction="none")
    return -(logprobs_T.detach().exp() * logprobs_T).sum()


def _measure(work: Callable[[], None]) -> tuple[int, float]:
    """The process's peak memory above its previous use, in bytes, and the seconds. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    started_s = time.monotonic()
    work()
    return _status("VmHWM") - before, time.monotonic() - started_s


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field + ":"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
