"""Real Ray Serve and a real vLLM engine with the embedded model: the clients people have, faults, and new weights.

One server for all; the tests run in the order of the file, and each leaves it ready. OFFSFT_TEST_INGRESS=python runs them
with Ray's Python proxy in front.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import openai
import psutil
import pytest
import yaml

from offsft.demo.model import embedded_model
from offsft.demo.problems import generate

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
KEY = "a-key-for-the-tests-only"
HEADERS = {"authorization": f"Bearer {KEY}"}
PROBLEM = generate(1, split="held_out", seed=3)[0]
PATIENCE_S = 500


class Service:
    """`python -m jobs.serve` in a process of its own."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.access_log = folder / "access.jsonl"
        config = yaml.safe_load((ROOT / "services" / "local.yaml").read_text())
        config["applications"][0]["args"] |= {
            "access_log": str(self.access_log),
            "limits": {"requests_per_minute": 1e6, "burst": 10**6},
        }
        (folder / "serve.yaml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{port}"
        environment = os.environ | {"OFFSFT_API_KEYS": f"tests:{KEY}", "RAY_raylet_start_wait_time_s": "300"}
        environment.pop("RAY_ADDRESS", None)
        self.log = folder / "serve.log"
        with self.log.open("wb") as log:
            command = [sys.executable, "-m", "jobs.serve", str(folder / "serve.yaml"), f"port={port}", "model="]
            command += [f"ingress={os.environ.get('OFFSFT_TEST_INGRESS', 'haproxy')}"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def wait(self, condition):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.2)

    def ready(self):
        try:
            return httpx.get(f"{self.url}/readyz", timeout=30).status_code == 200
        except httpx.HTTPError:
            return False

    def processes(self, title):
        """Its processes whose title holds `title`."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if title in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def ray_address(self):
        return self.log.read_text().split("Ray: ")[1].split(")")[0]

    def deploy(self, *arguments):
        environment = os.environ | {"RAY_ADDRESS": self.ray_address()}
        command = [sys.executable, "-m", "jobs.deploy", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("serving"))
    try:
        service.wait(lambda: "serving on" in service.log.read_text())
        service.wait(service.ready)
        yield service
    finally:
        if service.process.poll() is None:
            service.process.send_signal(signal.SIGTERM)
        service.process.wait(timeout=120)


@pytest.fixture(scope="module")
def client(service):
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0)


def rewrite(service, **more):
    return httpx.post(f"{service.url}/v1/rewrite", json=PROBLEM | more, headers=HEADERS, timeout=120)


def test_the_openai_client_chats_completes_and_streams(client):
    (model,) = client.models.list().data
    assert model.id == "base"
    messages = [{"role": "user", "content": "Say hello."}]
    chat = client.chat.completions.create(
        model="base", messages=messages, max_tokens=12, logprobs=True, top_logprobs=2, n=2, temperature=1.0
    )
    assert chat.model == "base"
    assert len(chat.choices) == 2
    for choice in chat.choices:
        assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in choice.logprobs.content)
    assert chat.usage.completion_tokens <= 24

    greedy = {"model": "base", "messages": messages, "max_tokens": 12, "temperature": 0.0}
    whole = client.chat.completions.create(**greedy).choices[0].message.content
    chunks = list(client.chat.completions.create(**greedy, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert all(chunk.usage is None for chunk in chunks)
    counted = list(client.chat.completions.create(**greedy, stream=True, stream_options={"include_usage": True}))
    assert counted[-1].usage.completion_tokens > 0

    completion = client.completions.create(model="base", prompt="1, 2, 3,", max_tokens=4, logprobs=1, temperature=0.0)
    assert len(completion.choices[0].logprobs.token_logprobs) == 4


def test_the_openai_client_gets_its_own_errors(service, client):
    messages = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        client.chat.completions.create(model="gpt", messages=messages)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0).models.list()
    with pytest.raises(openai.UnprocessableEntityError, match="n comes to 99, and the limit is 16"):
        client.chat.completions.create(model="base", messages=messages, n=99)
    with pytest.raises(openai.UnprocessableEntityError, match="takes no seed"):
        client.chat.completions.create(model="base", messages=messages, seed=1)
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": "word " * 900}])
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="base", messages=[{"role": "user", "content": "word " * 900}], stream=True)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="base", messages="no list")
    big = httpx.post(f"{service.url}/v1/rewrite", content=b" " * 50 * 2**20, headers=HEADERS, timeout=120)
    assert big.status_code == 413


def test_a_rewrite_by_the_engine_has_its_log_probs(service):
    answer = rewrite(service, waves={"self": [2], "guided": [1]}, keep_attempts=True).json()
    assert (answer["model"], answer["answer"]) == ("base", PROBLEM["answer"])
    assert "".join(token["text"] for token in answer["tokens"]).startswith(answer["response"])
    assert len(answer["policy_logprobs"]) == len(answer["tokens"])
    assert all(logprob <= 0 for logprob in answer["policy_logprobs"])
    again = rewrite(service, stages=["expert"]).json()
    assert [t["policy_logprob"] for t in again["expert_tokens"]] == pytest.approx(
        [t["policy_logprob"] for t in answer["expert_tokens"]], abs=0.05
    )
    with httpx.stream(
        "POST", f"{service.url}/v1/rewrite", json=PROBLEM | {"stream": True}, headers=HEADERS, timeout=120
    ) as got:
        names = [line.removeprefix("event: ") for line in got.iter_lines() if line.startswith("event: ")]
    assert names[0] == "start"
    assert names[-1] == "result"
    assert "attempt" in names


def test_the_tokens_of_a_client_that_goes_away_stop(service):
    """Asked for 16 times 300 tokens, the engine would be at it for long; without them it is idle soon."""
    body = {"model": "base", "messages": [{"role": "user", "content": "Tell"}], "max_tokens": 300, "ignore_eos": True}
    workers = service.processes("VLLM::")

    def statuses():
        return [json.loads(line)["status"] for line in service.access_log.read_text().splitlines()]

    url = f"{service.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body | {"n": 16, "stream": True}, headers=HEADERS, timeout=60) as answer:
        next(answer.iter_lines())
    service.wait(lambda: statuses().count(499) == 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url, json=body | {"n": 16}, headers=HEADERS, timeout=httpx.Timeout(60, read=1.0))
    service.wait(lambda: statuses().count(499) == 2)

    def busy_s():
        return sum(sum(worker.cpu_times()[:2]) for worker in workers)

    def idle():
        before = busy_s()
        time.sleep(1)
        return busy_s() - before < 0.3

    service.wait(idle)
    assert rewrite(service, stages=["expert"]).status_code == 200


def test_new_weights_come_without_a_failed_or_mixed_request(service, client, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(embedded_model(), other)
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = weights[name] * 1.01
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})

    before = client.models.retrieve("base").revision
    done, seen, failed = threading.Event(), Counter(), []

    def load():
        with httpx.Client(base_url=service.url, headers=HEADERS, timeout=120) as session:
            while not done.is_set():
                got = session.post("/v1/rewrite", json=PROBLEM | {"stages": ["guided"], "waves": {"guided": [1]}})
                chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
                said = session.post("/v1/chat/completions", json=chat)
                if got.status_code != 200 or said.status_code != 200:
                    failed.append((got.text[:300], said.text[:300]))
                else:
                    seen[got.json()["revision"]] += 1
                    seen[said.headers["x-model-revision"]] += 1

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        deployed = service.deploy(f"model={other}")
        after = client.models.retrieve("base").revision
        service.wait(lambda: seen[after] > 4)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert not failed
    assert set(seen) == {before, after}
    assert before != after
    assert len(service.processes("ray::ServeReplica:generator")) == 1
    wrong = service.deploy("model=runs/no-such-model")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: runs/no-such-model holds no model")
    assert service.ready()


def test_a_killed_engine_is_told_and_comes_back(service):
    (engine,) = service.processes("VLLM::EngineCore")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(rewrite(service, waves={"self": [8]})))
    asking.start()
    time.sleep(0.3)
    engine.kill()
    asking.join()
    assert answers[0].status_code in (200, 503)  # 200 where it had been answered just before
    service.wait(lambda: not service.ready())
    refused = rewrite(service, stages=["expert"])
    assert refused.status_code == 503
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    assert int(refused.headers["retry-after"]) >= 1
    service.wait(service.ready)
    assert rewrite(service, stages=["expert"]).status_code == 200


def test_a_killed_gateway_comes_back(service):
    (gateway,) = service.processes("ray::ServeReplica:gateway")
    gateway.kill()
    service.wait(lambda: [p.pid for p in service.processes("ray::ServeReplica:gateway")] not in ([], [gateway.pid]))
    service.wait(service.ready)
    assert rewrite(service, stages=["expert"]).status_code == 200


def test_a_stop_finishes_what_is_in_work(service):
    answers = []
    asking = threading.Thread(target=lambda: answers.append(rewrite(service, waves={"self": [4]})))
    asking.start()
    time.sleep(0.5)
    service.process.send_signal(signal.SIGTERM)
    asking.join()
    assert answers[0].status_code == 200, answers[0].text
    assert service.process.wait(timeout=PATIENCE_S) == 0
    assert KEY not in service.access_log.read_text()
