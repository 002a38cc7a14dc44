"""Memory and time of the fused head against full logits: `python -m benchmarks.fused_head [--json] [--shape T,D,V ...]`.

Memory is the peak beyond the inputs and their gradients, forward and backward: as the operating system counts it, or on
a GPU as torch allocates it. `memory_ratio` is the fused head's memory over the size of the full float32 logits, T x V x 4
bytes (full logits need a multiple of that: `full_memory_ratio`). `time_ratio` is the fused head's seconds over those of
full logits, each the best of its rounds, which alternate in one process.

On a GPU (`--dtype`, bfloat16 there by default) more heads are measured, listed under `heads`: products `split` into 16-bit
numbers (`train.head_products`), both of them with `--chunk-tokens`, and Liger's fused cross-entropy where it is
installed. `product_share` is the rate of the head's products, counted as 6 T D V operations, as a share of that of one large
product on the same card in the same type. `errors` are the relative errors (L2 norms) of log-probs and gradients against float64, over
the first 512 tokens. Full logits are a product in the head's type, then float32, as a model computes them; Liger's loss
is -log p, without DFT's weight.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.train_inputs import matrix_rate
from offsft.config.objective import Dft
from offsft.losses.fused_head import HeadOutput, fused_head
from offsft.losses.objectives import Tokens

SHAPES = ((4096, 896, 152064), (1024, 896, 152064), (1024, 576, 49152))
"""Tokens, hidden size, vocabulary size; the first shape gives `memory_ratio` and `time_ratio`."""
_CHECKED_TOKENS = 512

Head = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each implementation (default 2)")
    parser.add_argument("--shape", action="append", metavar="T,D,V", help="tokens, hidden size, words; may be repeated")
    parser.add_argument(
        "--dtype", choices=["bfloat16", "float32"], help="of hidden states and head (float32; on a GPU bfloat16)"
    )
    parser.add_argument("--chunk-tokens", type=int, nargs="*", default=[], help="on a GPU: also with chunks of so many")
    arguments = parser.parse_args()
    shapes = [tuple(map(int, shape.split(","))) for shape in arguments.shape or []] or SHAPES
    if torch.cuda.is_available():
        dtype = arguments.dtype or "bfloat16"
        results = [measure_on_gpu(shape, arguments.rounds, dtype, arguments.chunk_tokens) for shape in shapes]
    else:
        results = [measure(*shape, rounds=arguments.rounds, dtype=arguments.dtype or "float32") for shape in shapes]
    if arguments.json:
        headline = {key: results[0][key] for key in ("memory_ratio", "time_ratio")}
        print(json.dumps(headline | {"threads": torch.get_num_threads(), "shapes": results}))
        return
    for result in results:
        print("  ".join(f"{key} {value:.3g}" for key, value in result.items() if isinstance(value, int | float)))
        for name, head in result.get("heads", {}).items():
            print(f"    {name}: {json.dumps(head)}")


def measure(tokens: int, dim: int, words: int, *, rounds: int, dtype: str = "float32") -> dict[str, Any]:
    """Peak memory and best time of both heads, at one shape, on random data."""
    hidden_TD, weight_VD, targets_T = _inputs(tokens, dim, words, dtype, "cpu")
    both: dict[str, Head] = {"fused": _fused(), "full": _full}
    seconds: dict[str, list[float]] = {name: [] for name in both}
    peaks: dict[str, list[int]] = {name: [] for name in both}
    for _ in range(rounds):
        for name, loss in both.items():
            hidden_TD.grad = weight_VD.grad = None
            peak, spent = _measure(lambda loss=loss: loss(hidden_TD, weight_VD, targets_T).backward())
            peaks[name].append(peak - _bytes(hidden_TD, weight_VD))
            seconds[name].append(spent)
    return _compared(tokens, dim, words, seconds, peaks)


def measure_on_gpu(shape: tuple[int, ...], rounds: int, dtype: str, chunk_tokens: list[int]) -> dict[str, Any]:
    """As `measure`, of all heads, with their errors; each is warmed up by a run that does not count."""
    tokens, dim, words = shape
    inputs = _inputs(tokens, dim, words, dtype, "cuda")
    hidden_TD, weight_VD, _ = inputs
    heads: dict[str, Head] = {"fused": _fused(), "full": _full, "split": _fused(split=True)}
    for chunk in chunk_tokens:
        heads |= {f"fused_{chunk}": _fused(chunk=chunk), f"split_{chunk}": _fused(chunk=chunk, split=True)}
    if find_spec("liger_kernel"):
        heads["liger"] = _liger()
    seconds: dict[str, list[float]] = {name: [] for name in heads}
    peaks: dict[str, list[int]] = {name: [] for name in heads}
    for round_ in range(1 + rounds):
        for name, loss in heads.items():
            hidden_TD.grad = weight_VD.grad = None
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
            started_s = time.monotonic()
            loss(*inputs).backward()
            torch.cuda.synchronize()
            if round_:
                seconds[name].append(time.monotonic() - started_s)
                peaks[name].append(torch.cuda.max_memory_allocated() - before - _bytes(hidden_TD, weight_VD))
    hidden_TD.grad = weight_VD.grad = None
    rate = matrix_rate(dtype, "cuda")
    logits = 4 * tokens * words
    found = {
        name: {
            "ms": round(1000 * statistics.median(seconds[name]), 2),
            "memory_ratio": round(max(peaks[name]) / logits, 4),
            "product_share": round(6.0 * tokens * dim * words / statistics.median(seconds[name]) / rate, 4),
        }
        for name in heads
    }
    compared = _compared(tokens, dim, words, seconds, peaks)
    split = {
        "split_memory_ratio": max(peaks["split"]) / logits,
        "split_time_ratio": min(seconds["split"]) / min(seconds["full"]),
    }
    rates = {"dtype": dtype, "matrix_tflops": round(rate / 1e12, 1)}
    return compared | split | rates | {"heads": found, "errors": _errors(*inputs)}


def _compared(
    tokens: int, dim: int, words: int, seconds: dict[str, list[float]], peaks: dict[str, list[int]]
) -> dict[str, Any]:
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


def _inputs(tokens: int, dim: int, words: int, dtype: str, device: str) -> tuple[torch.Tensor, ...]:
    """Hidden states (T, D), head (V, D) and targets (T), random."""
    torch.manual_seed(0)
    type_ = getattr(torch, dtype)
    hidden_TD = torch.randn(tokens, dim, device=device).to(type_).requires_grad_()
    weight_VD = (torch.randn(words, dim, device=device) * dim**-0.5).to(type_).requires_grad_()
    return hidden_TD, weight_VD, torch.randint(words, (tokens,), device=device)


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _fused(*, split: bool = False, chunk: int | None = None) -> Head:
    def loss(hidden_TD: torch.Tensor, weight_VD: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
        return _run_fused(hidden_TD, weight_VD, targets_T, split=split, chunk=chunk).loss

    return loss


def _run_fused(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    targets_T: torch.Tensor,
    *,
    split: bool = False,
    chunk: int | None = None,
) -> HeadOutput:
    count, device = len(targets_T), targets_T.device
    tokens = Tokens(torch.ones(count, device=device), torch.zeros(count, dtype=torch.long, device=device))
    return fused_head(hidden_TD, weight_VD, targets_T, Dft(), tokens, chunk_tokens=chunk, split=split)


def _full(hidden_TD: torch.Tensor, weight_VD: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
    return _dft(_logprobs(hidden_TD, weight_VD, targets_T))


def _logprobs(hidden_TD: torch.Tensor, weight_VD: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
    logits_TV = hidden_TD @ weight_VD.T
    if logits_TV.dtype == torch.bfloat16:
        logits_TV = logits_TV.float()
    return -torch.nn.functional.cross_entropy(logits_TV, targets_T, reduction="none")


def _dft(logprobs_T: torch.Tensor) -> torch.Tensor:
    return -(logprobs_T.detach().exp() * logprobs_T).sum()


def _liger() -> Head:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]

    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")
    return lambda hidden_TD, weight_VD, targets_T: loss(weight_VD, hidden_TD, targets_T)


def _errors(hidden_TD: torch.Tensor, weight_VD: torch.Tensor, targets_T: torch.Tensor) -> dict[str, dict[str, float]]:
    """Relative errors of log-probs and of both gradients, by head, against the same loss in float64."""
    targets_T = targets_T[:_CHECKED_TOKENS]

    def run(dtype: torch.dtype, logprobs: Callable[..., torch.Tensor | HeadOutput]) -> tuple[torch.Tensor, ...]:
        hidden = hidden_TD.detach()[:_CHECKED_TOKENS].to(dtype, copy=True).requires_grad_()
        weight = weight_VD.detach().to(dtype, copy=True).requires_grad_()
        found = logprobs(hidden, weight, targets_T)
        loss, values_T = (found.loss, found.logprobs_T) if isinstance(found, HeadOutput) else (_dft(found), found)
        loss.backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        return values_T.detach(), hidden.grad, weight.grad

    reference = run(torch.float64, _logprobs)
    heads = {
        "fused": _run_fused,
        "split": lambda *inputs: _run_fused(*inputs, split=True),
        "full": _logprobs,
    }
    errors = {}
    for name, head in heads.items():
        found = run(hidden_TD.dtype, head)
        shares = [float((got.double() - want).norm() / want.norm()) for got, want in zip(found, reference, strict=True)]
        errors[name] = dict(
            zip(("logprobs", "grad_hidden", "grad_weight"), (float(f"{s:.2e}") for s in shares), strict=True)
        )
    return errors


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
