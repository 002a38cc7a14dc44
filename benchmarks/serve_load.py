"""Overhead and overload of our HTTP services: `python -m benchmarks.serve_load [--json] [--rounds 2] [--tokens 16]
[--longer 64]`.

`make serve` (the embedded model) and vLLM's own server of the same model, with the same engine settings, run side by
side on loopback. They are asked in turn, at 1, 4, 16 and 64 concurrent clients, with chat requests of a short prompt
and a fixed number of tokens; our server also with rewrites of one sample. At one client they alternate request by
request, with the same prompt, so that the machine's drift affects both. Then ours gets four times the requests that it
admits at once, several times. `--ingress python` puts Ray's Python proxy in front of ours instead of its HAProxy.
Prints:

`chat`, `vllm`, `rewrite`  by the number of clients: requests, errors, seconds, tokens_per_s, and p50, p95, p99 of the
                           latency (seconds)
`overhead_p50`             our p50 at one client over vLLM's, minus 1
`overhead_s`               median over the pairs of our latency minus vLLM's, seconds
`throughput_ratio_16`      our tokens_per_s at 16 clients over vLLM's
`longer`                   the same for chat answers of `--longer` tokens, at 1 and 16 clients
`overload`                 `sent` at once; `answers` by status; `hung` without an answer; `rss_growth_mb` of our processes;
                           `recovered_p50`, the latency of the first requests after it; `again`, the same of each repetition
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from offsft.demo.model import embedded_model
from offsft.demo.problems import generate
from services.ingress import KINDS

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 4, 16, 64)
REQUESTS = {1: 12, 4: 16, 16: 64, 64: 64}
"""Requests per round, by number of clients."""
LONGER_CLIENTS = (1, 16)
REST_S = 1.2
"""Pause before a request of a pair: a vLLM engine spins on a core for a second after its last step, at the other's cost."""
OVERLOADS = 3
ACTIVE, QUEUED = 64, 64
START_S, HUNG_S = 400, 180

Timed = tuple[float, list[tuple[float, int, int]]]
"""Seconds in total, and per request the latency (seconds), the status and the tokens."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each, in turn (default 2)")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of a chat answer (default 16)")
    parser.add_argument("--longer", type=int, default=64, help="tokens of longer chat answers; 0: none (default 64)")
    parser.add_argument(
        "--ingress", default="haproxy", choices=KINDS, help="what is in front of ours (default haproxy)"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    with (
        tempfile.TemporaryDirectory(prefix="offsft-load-") as folder,
        both_servers(Path(folder), arguments.ingress) as (ours, theirs, process),
    ):
        found = asyncio.run(measure(ours, theirs, process, arguments))
    print(json.dumps(found) if arguments.json else yaml.safe_dump(found, sort_keys=False))


@contextmanager
def both_servers(folder: Path, ingress: str) -> Any:
    """Our address, vLLM's, and our process; the servers start one after the other, so that neither starves."""
    config = yaml.safe_load((ROOT / "services" / "local.yaml").read_text())
    config["applications"][0]["args"]["limits"] = {
        "requests_per_minute": 1e9,
        "burst": 10**9,
        "active": ACTIVE,
        "queued": QUEUED,
    }
    config["applications"][0]["args"]["access_log"] = str(folder / "access.jsonl")
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    recipe = yaml.safe_load((ROOT / "jobs" / "recipes" / "demo.yaml").read_text())
    ours, theirs = free_port(), free_port()
    environment = os.environ | {
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    vllm = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(embedded_model()), "--served-model-name", "base"]
    vllm += ["--dtype", recipe["model"]["dtype"], "--max-model-len", str(recipe["model"]["context_tokens"] + 1)]
    vllm += ["--max-num-seqs", "64", "--enforce-eager", "--logprobs-mode", "processed_logprobs"]
    vllm += ["--host", "127.0.0.1", "--port", str(theirs), "--disable-uvicorn-access-log"]
    commands = (
        (
            ["-m", "jobs.serve", str(folder / "serve.yaml"), "model=", f"port={ours}", f"ingress={ingress}"],
            f"http://127.0.0.1:{ours}/readyz",
        ),
        (vllm, f"http://127.0.0.1:{theirs}/health"),
    )
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number, (command, health) in enumerate(commands):
            with (folder / f"server-{number}.log").open("wb") as log:
                running.append(
                    subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log)
                )
            wait_for(health, running[-1], folder / f"server-{number}.log")
        yield f"http://127.0.0.1:{ours}", f"http://127.0.0.1:{theirs}", running[0]
    finally:
        for server in running:
            server.terminate()
        for server in running:
            server.wait(timeout=180)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s and server.poll() is None:
        try:
            if httpx.get(address, timeout=10).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"a server did not start:\n{log.read_text()[-2000:]}")


async def measure(
    ours: str, theirs: str, process: subprocess.Popen[bytes], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measure everything in turn, and join the rounds of each kind."""
    rounds, tokens = arguments.rounds, arguments.tokens
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=128)
    async with httpx.AsyncClient(timeout=HUNG_S, limits=limits) as client:
        for kind, address in (("chat", ours), ("vllm", theirs), ("rewrite", ours)):  # warm
            await many(client, address, kind, 2, 4, tokens)
        found = await side_by_side(client, ours, theirs, rounds, CLIENTS, tokens)
        rewrites = {n: [await many(client, ours, "rewrite", n, REQUESTS[n], tokens)] for n in CLIENTS}
        found["rewrite"] = {n: summary(runs) for n, runs in rewrites.items()}
        if arguments.longer:
            found["longer"] = await side_by_side(client, ours, theirs, rounds, LONGER_CLIENTS, arguments.longer)
            found["longer"]["tokens"] = arguments.longer
        first, *again = [await overload(client, ours, process, tokens) for _ in range(OVERLOADS)]
    return {
        **found,
        "overload": {**first, "again": again},
        "tokens": tokens,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


async def side_by_side(
    client: httpx.AsyncClient, ours: str, theirs: str, rounds: int, clients: tuple[int, ...], tokens: int
) -> dict[str, Any]:
    """Chat with both servers; the order alternates from turn to turn."""
    seen: dict[str, dict[int, list[Timed]]] = {"chat": {}, "vllm": {}}
    addresses = {"chat": ours, "vllm": theirs}
    more_s: list[float] = []
    for number in range(rounds):
        order = ("chat", "vllm") if number % 2 == 0 else ("vllm", "chat")
        for count in clients:
            if count == 1:
                timed = await in_pairs(client, addresses, REQUESTS[1], number, tokens)
                more_s += [our[0] - their[0] for our, their in zip(timed["chat"], timed["vllm"], strict=True)]
                for kind, results in timed.items():
                    seen[kind].setdefault(1, []).append((sum(result[0] for result in results), results))
                continue
            for kind in order:
                await asyncio.sleep(REST_S)
                got = await many(client, addresses[kind], kind, count, REQUESTS[count], tokens)
                seen[kind].setdefault(count, []).append(got)
    found: dict[str, Any] = {kind: {n: summary(runs) for n, runs in of.items()} for kind, of in seen.items()}
    found["overhead_p50"] = round(found["chat"][1]["p50"] / found["vllm"][1]["p50"] - 1, 4)
    found["overhead_s"] = round(statistics.median(more_s), 4)
    found["throughput_ratio_16"] = round(found["chat"][16]["tokens_per_s"] / found["vllm"][16]["tokens_per_s"], 4)
    return found


async def in_pairs(
    client: httpx.AsyncClient, addresses: dict[str, str], requests: int, seed: int, tokens: int
) -> dict[str, list[tuple[float, int, int]]]:
    """One client sends each server the same request, one after the other; the results by server, pair by pair."""
    results: dict[str, list[tuple[float, int, int]]] = {kind: [] for kind in addresses}
    for number, problem in enumerate(generate(requests, split="held_out", seed=1000 + seed)):
        for kind in addresses if number % 2 == 0 else reversed(addresses):
            await asyncio.sleep(REST_S)
            results[kind].append(await one(client, addresses[kind], kind, problem, tokens))
    return results


async def many(client: httpx.AsyncClient, address: str, kind: str, clients: int, requests: int, tokens: int) -> Timed:
    """Send requests from several clients, each one after the other; returns their `Timed`."""
    problems = generate(requests, split="held_out", seed=requests)
    numbers = iter(range(requests))
    results: list[tuple[float, int, int]] = []

    async def one_client() -> None:
        for number in numbers:
            results.append(await one(client, address, kind, problems[number], tokens))

    started_s = time.monotonic()
    await asyncio.gather(*(one_client() for _ in range(clients)))
    return time.monotonic() - started_s, results


async def one(
    client: httpx.AsyncClient, address: str, kind: str, problem: dict[str, str], tokens: int
) -> tuple[float, int, int]:
    if kind == "rewrite":
        route, body = "/v1/rewrite", {**problem, "stages": ["self"], "waves": {"self": [1]}}
    else:
        message = {"role": "user", "content": problem["problem"]}
        route = "/v1/chat/completions"
        body = {"model": "base", "messages": [message], "max_tokens": tokens, "temperature": 1.0, "ignore_eos": True}
    started_s = time.monotonic()
    try:
        answer = await client.post(address + route, json=body)
    except httpx.HTTPError:
        return time.monotonic() - started_s, 0, 0
    written = answer.json()["usage"]["completion_tokens"] if answer.status_code == 200 else 0
    return time.monotonic() - started_s, answer.status_code, written


def summary(runs: list[Timed]) -> dict[str, Any]:
    seconds = sum(run[0] for run in runs)
    results = [result for run in runs for result in run[1]]
    latencies = sorted(latency for latency, _, _ in results)
    return {
        "requests": len(results),
        "errors": sum(status != 200 for _, status, _ in results),
        "seconds": round(seconds, 2),
        "tokens_per_s": round(sum(tokens for _, _, tokens in results) / seconds, 1),
        **{
            f"p{share}": round(latencies[min(len(latencies) - 1, len(latencies) * share // 100)], 4)
            for share in (50, 95, 99)
        },
    }


async def overload(
    client: httpx.AsyncClient, ours: str, process: subprocess.Popen[bytes], tokens: int
) -> dict[str, Any]:
    """Send at once four times the requests that may run and wait."""
    sent = 4 * (ACTIVE + QUEUED)
    before = memory_mb(process)
    _, results = await many(client, ours, "chat", sent, sent, tokens)
    growth = memory_mb(process) - before
    _, after = await many(client, ours, "chat", 1, REQUESTS[1], tokens)
    answers = Counter(str(status) for _, status, _ in results if status)
    return {
        "sent": sent,
        "answers": dict(answers),
        "hung": sum(status == 0 for _, status, _ in results),
        "rss_growth_mb": round(growth, 1),
        "recovered_p50": summary([(1.0, after)])["p50"],
    }


def memory_mb(process: subprocess.Popen[bytes]) -> float:
    """Memory of the server and all its descendants."""
    total = 0
    for one_process in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        try:
            total += one_process.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total / 2**20


if __name__ == "__main__":
    main()
