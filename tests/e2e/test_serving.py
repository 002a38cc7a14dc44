"""Real Ray Serve and a real vLLM engine with the embedded model: common clients, faults, and new weights.

All tests share one server; they run in the order of the file, and each leaves it ready. OFFSFT_TEST_INGRESS=python
runs them with Ray's Python proxy in front.
"""

import http.client
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
from contextlib import contextmanager
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
    """`python -m jobs.serve` in a separate process."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.access_log = folder / "access.jsonl"
        config = yaml.safe_load((ROOT / "services" / "local.yaml").read_text())
        config["applications"][1]["args"]["adapters"] = {"most": 2, "at_once": 1, "rank": 16}
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
        """Its processes whose title contains `title`."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                if title in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def engine_s(self):
        """CPU seconds that the engine has used."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes("VLLM::"))

    @contextmanager
    def engine_at_work(self):
        """Run the block's requests, then wait until the engine works on them."""
        before = self.engine_s()
        yield
        self.wait(lambda: self.engine_s() - before > 0.3)

    def logged(self, request_id):
        """The access log's line for a request; None until there is one."""
        lines = map(json.loads, self.access_log.read_text().splitlines())
        return next((line for line in lines if line["request_id"] == request_id), None)

    def ray_address(self):
        return self.log.read_text().split("Ray: ")[1].split(")")[0]

    def deploy(self, *arguments):
        environment = os.environ | {"RAY_ADDRESS": self.ray_address()}
        command = [sys.executable, "-m", "jobs.deploy", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


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
        service.process.wait()


@pytest.fixture(scope="module")
def client(service):
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0)


def rewrite(service, **more):
    return httpx.post(f"{service.url}/v1/rewrite", json=PROBLEM | more, headers=HEADERS, timeout=PATIENCE_S)


def test_the_openai_client_chats_completes_and_streams(service, client):
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
    named = {"x-request-id": "read-to-its-last-event"}
    chunks = list(client.chat.completions.create(**greedy, stream=True, extra_headers=named))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert all(chunk.usage is None for chunk in chunks)
    service.wait(lambda: service.logged("read-to-its-last-event"))
    assert service.logged("read-to-its-last-event")["status"] == 200
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
    for stream in (False, True):
        long = [{"role": "user", "content": "word " * 900}]
        with pytest.raises(openai.BadRequestError, match="maximum context length is 384 tokens") as caught:
            client.chat.completions.create(model="base", messages=long, stream=stream)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert client.completions.create(model="base", prompt="a", max_tokens=2, temperature=0, seed=1234).choices
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="base", messages="no list")
    big = httpx.post(f"{service.url}/v1/rewrite", content=b" " * 50 * 2**20, headers=HEADERS, timeout=120)
    assert big.status_code == 413


def test_langchain_chats_and_streams(service):
    from langchain_openai import ChatOpenAI

    settings = {"base_url": f"{service.url}/v1", "api_key": KEY, "temperature": 0, "max_tokens": 8, "max_retries": 0}
    chat, messages = ChatOpenAI(model="base", **settings), [("system", "Be brief."), ("human", "Say hello.")]
    whole = chat.invoke(messages)
    assert 0 < whole.usage_metadata["output_tokens"] <= 8
    pieces = list(chat.stream(messages, stream_usage=True))
    assert "".join(str(piece.content) for piece in pieces) == whole.content
    usage = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
    assert usage[-1]["output_tokens"] == whole.usage_metadata["output_tokens"]
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt'"):
        ChatOpenAI(model="gpt", **settings).invoke(messages)


def test_litellm_chats_streams_completes_and_knows_the_errors(service, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks a server for prices
    import litellm

    server = {"api_base": f"{service.url}/v1", "api_key": KEY, "num_retries": 0, "max_retries": 0}
    asked = {**server, "model": "openai/base", "max_tokens": 8, "temperature": 0}
    hello = [{"role": "user", "content": "Say hello."}]
    whole = litellm.completion(**asked, messages=hello)
    assert whole.usage.completion_tokens <= 8
    pieces = list(litellm.completion(**asked, messages=hello, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    text = litellm.text_completion(**{**asked, "model": "text-completion-openai/base"}, prompt="1, 2, 3,")
    assert text.choices[0].text
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**asked, messages=[{"role": "user", "content": "word " * 900}])
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**{**asked, "model": "openai/gpt"}, messages=hello)


RECORDED = yaml.safe_load((Path(__file__).parent / "recorded_requests.yaml").read_text())


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded["client"])
def test_recorded_requests_of_popular_programs_are_answered(service, recorded):
    got = httpx.request(
        recorded.get("method", "POST"),
        service.url + recorded["path"],
        headers=HEADERS | recorded.get("headers", {}),
        json=recorded.get("body"),
        timeout=PATIENCE_S,
    )
    assert got.status_code == recorded["status"], got.text
    assert recorded["holds"].replace(" ", "") in got.text.replace(" ", "")


HOSTILE = [
    {"structured_outputs": {"regex": "("}},
    {"structured_outputs": {"json": "no schema"}},
    {"structured_outputs": {"choice": []}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "poem"}}}},
    {"logit_bias": {"999999": 1}},
    {"allowed_token_ids": []},
    {"stop_token_ids": [-1]},
    {"bad_words": [""]},
    {"n": -1},
    {"temperature": -1},
    {"top_p": 2},
    {"top_k": -7},
    {"min_p": 3},
    {"repetition_penalty": -1},
    {"min_tokens": 50},
    {"stop": [""]},
    {"truncate_prompt_tokens": 10**9},
    {"logprobs": True, "top_logprobs": 21},
    {"tools": [{"type": "function", "function": {"name": "add"}}]},
]


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: next(iter(change)))
def test_what_the_engine_refuses_is_the_clients_to_mend_and_names_its_field(service, change):
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3} | change
    got = httpx.post(f"{service.url}/v1/chat/completions", json=body, headers=HEADERS, timeout=120)
    assert got.status_code == 400, got.text
    assert got.json()["error"]["param"] in change
    assert "retry-after" not in got.headers


def test_responses_and_tokens_are_as_their_clients_expect(service, client):
    answer = client.responses.create(model="base", input="Say hello.", max_output_tokens=8, temperature=0)
    assert answer.output_text
    events = list(
        client.responses.create(model="base", input="Say hello.", max_output_tokens=8, temperature=0, stream=True)
    )
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == answer.output_text
    assert events[-1].response.usage.output_tokens == answer.usage.output_tokens
    tokens = httpx.post(f"{service.url}/tokenize", json={"prompt": "3 * 4"}, headers=HEADERS, timeout=60).json()[
        "tokens"
    ]
    text = httpx.post(f"{service.url}/detokenize", json={"tokens": tokens}, headers=HEADERS, timeout=60).json()
    assert text["prompt"] == "3 * 4"


def test_a_prompts_log_probs_are_the_same_for_one_sample_and_for_several(client):
    asked = {"model": "base", "prompt": "1, 2, 3,", "max_tokens": 2, "echo": True, "logprobs": 1, "temperature": 1}
    alone = client.completions.create(**asked)
    (one,), prompt = alone.choices, alone.usage.prompt_tokens
    several = client.completions.create(**asked, n=3).choices
    assert len(several) == 3
    for choice in several:
        assert choice.text.startswith("1, 2, 3,")
        assert prompt < len(choice.logprobs.tokens) == len(choice.logprobs.token_logprobs) <= prompt + 2
        for name in ("tokens", "text_offset"):
            assert getattr(choice.logprobs, name)[:prompt] == getattr(one.logprobs, name)[:prompt]
        assert choice.logprobs.text_offset[prompt] == one.logprobs.text_offset[prompt]
        got, want = (each.logprobs.token_logprobs[1:prompt] for each in (choice, one))
        assert got == pytest.approx(want, abs=0.05)


def test_an_adapter_is_served_beside_its_base_on_the_same_engine(service, client, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(embedded_model())
    settings = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    deployed = service.deploy(f"adapter={tmp_path / 'adapter'}", "name=mine")
    assert deployed.returncode == 0, deployed.stderr
    revision = client.models.retrieve("mine").revision
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}
    assert client.chat.completions.create(model="mine", **chat).model == f"mine@{revision}"
    scores = {}
    for name in ("mine", "base"):
        answer = rewrite(service, model=name, stages=["expert"]).json()
        scores[name] = [token["policy_logprob"] for token in answer["expert_tokens"]]
    assert scores["mine"] != pytest.approx(scores["base"], abs=0.05)
    assert len(service.processes("VLLM::EngineCore")) == 1
    assert service.deploy("adapter=", "name=mine").returncode == 0
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("mine")


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


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_the_tokens_of_a_client_that_goes_away_stop(service, stream):
    """The engine would work on 16 times 300 tokens for long; without them it is soon idle."""
    body = {"messages": [{"role": "user", "content": "Tell"}], "max_tokens": 300, "ignore_eos": True, "n": 16}
    headers = HEADERS | {"content-type": "application/json", "x-request-id": f"gone-{stream}"}
    asking = http.client.HTTPConnection(service.url.removeprefix("http://"))
    with service.engine_at_work():
        asking.request("POST", "/v1/chat/completions", json.dumps(body | {"stream": stream}), headers)
    asking.close()
    service.wait(lambda: service.logged(f"gone-{stream}"))
    assert service.logged(f"gone-{stream}")["status"] == 499

    def idle():
        before = service.engine_s()
        time.sleep(1)
        return service.engine_s() - before < 0.3

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
                done.wait(2)  # leaves the other engine some processor time to start

    threads = [threading.Thread(target=load) for _ in range(2)]
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
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: model=")
    assert "runs/no-such-model does not exist" in wrong.stderr
    assert service.ready()


def test_a_killed_engine_is_told_and_comes_back(service):
    (engine,) = service.processes("VLLM::EngineCore")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(rewrite(service, waves={"self": [8]})))
    with service.engine_at_work():
        asking.start()
    engine.kill()
    asking.join()
    assert answers[0].status_code in (200, 503)  # 200 if it was answered just before
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
    with service.engine_at_work():
        asking.start()
    service.process.send_signal(signal.SIGTERM)
    asking.join()
    assert answers[0].status_code == 200, answers[0].text
    assert service.process.wait() == 0
    assert KEY not in service.access_log.read_text()
    assert "infinite retries" not in service.log.read_text()
