"""What one key at its worst does to another: `python -m benchmarks.serve_fairness [--json] [--requests 40]`.

Starts `jobs.serve` with the embedded model and two keys. The key `quiet` sends short chats one after the other, first
alone, then while the key `flood` keeps 64 requests open of the costliest kinds that its limits let through: long answers
of many samples, long prompts with log-probs, and many small ones. Prints:

`alone`, `flooded`  requests, errors, and p50, p95, p99 of the latency of `quiet`'s chats (seconds)
`ratio_p50`, `ratio_p99`  flooded over alone
`flood`             the flood's answers by status
`limits`, `engine`  the settings under which it ran
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from benchmarks.serve_load import ROOT, free_port, summary, wait_for

LIMITS = {"active": 6, "key_share": 0.5, "requests_per_minute": 1e9, "burst": 10**9}
ENGINE = {"max_num_batched_tokens": 64, "max_num_seqs": 8}
"""A step of the engine reads at most so many tokens: long prompts of one key then pass between the words of another's."""
KEYS = {"flood": "the-key-of-the-flood", "quiet": "the-key-of-the-quiet"}
OPEN = 64
TOKENS = 16
WORST: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/completions", {"prompt": "a b " * 150, "echo": True, "logprobs": 5, "n": 4, "max_tokens": 2}),
    ("/v1/completions", {"prompt": "c d " * 20, "n": 16, "max_tokens": 300, "ignore_eos": True}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "e f " * 80}], "max_tokens": 64}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "g"}], "max_tokens": 1}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--requests", type=int, default=40, help="chats of the quiet key, in each part (default 40)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server ends too
    with tempfile.TemporaryDirectory(prefix="offsft-fair-") as folder, server(Path(folder)) as address:
        found = asyncio.run(measure(address, arguments.requests))
    print(json.dumps(found) if arguments.json else yaml.safe_dump(found, sort_keys=False))


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """The address of the services, with their limits and their engine's settings."""
    recipe = yaml.safe_load((ROOT / "jobs" / "recipes" / "demo.yaml").read_text())
    recipe.setdefault("engine", {})["max_sequences"] = ENGINE["max_num_seqs"]
    recipe["engine"]["args"] = {"max_num_batched_tokens": ENGINE["max_num_batched_tokens"]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    config = yaml.safe_load((ROOT / "services" / "local.yaml").read_text())
    gateway, generator = (app["args"] for app in config["applications"])
    (folder / "keys").write_text("".join(f"{name}: {key}\n" for name, key in KEYS.items()))
    gateway |= {"limits": LIMITS, "keys_file": str(folder / "keys"), "access_log": str(folder / "access.jsonl")}
    generator["recipe"] = str(folder / "recipe.yaml")
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    port, log = free_port(), folder / "server.log"
    command = [sys.executable, "-m", "jobs.serve", str(folder / "serve.yaml"), "model=", f"port={port}"]
    with log.open("wb") as file:
        running = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", running, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(timeout=180)


async def measure(address: str, requests: int) -> dict[str, Any]:
    """The quiet key's latencies alone and flooded."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=OPEN)
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
        await chats(client, 4)
        alone = summary([await chats(client, requests)])
        statuses: Counter[str] = Counter()
        flooding = [asyncio.ensure_future(flood(client, number, statuses)) for number in range(OPEN)]
        await asyncio.sleep(5)
        flooded = summary([await chats(client, requests)])
        for task in flooding:
            task.cancel()
        await asyncio.wait(flooding)
    return {
        "alone": alone,
        "flooded": flooded,
        **{f"ratio_p{share}": round(flooded[f"p{share}"] / alone[f"p{share}"], 2) for share in (50, 99)},
        "flood": dict(statuses),
        "limits": LIMITS,
        "engine": ENGINE,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


async def chats(client: httpx.AsyncClient, requests: int) -> tuple[float, list[tuple[float, int, int]]]:
    """Short chats of the quiet key, one after the other; the result as `serve_load` sums it up."""
    results = []
    started_s = time.monotonic()
    for number in range(requests):
        message = {"role": "user", "content": f"What is {number} * 4?"}
        body = {"messages": [message], "max_tokens": TOKENS, "temperature": 1.0, "ignore_eos": True}
        begun_s = time.monotonic()
        answer = await client.post("/v1/chat/completions", json=body, headers=authorization("quiet"))
        results.append((time.monotonic() - begun_s, answer.status_code, TOKENS))
    return time.monotonic() - started_s, results


async def flood(client: httpx.AsyncClient, number: int, statuses: Counter[str]) -> None:
    """One of the flood's open requests, again and again."""
    chosen = random.Random(number)
    while True:
        route, body = WORST[chosen.randrange(len(WORST))]
        answer = await client.post(route, json=body, headers=authorization("flood"))
        statuses[str(answer.status_code)] += 1
        if answer.status_code != 200:
            await asyncio.sleep(0.05)


def authorization(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[key]}"}


if __name__ == "__main__":
    main()
