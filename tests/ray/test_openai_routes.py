"""Our layers around ray.serve.llm's OpenAI routes, with a scripted engine behind them: no Ray runs here."""

import json

import pytest
from ray.exceptions import RayActorError
from starlette.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient

from offsft.cascade import cascade_settings
from offsft.config import Limits, Recipe
from services.app import build_app
from services.gate import Gate
from services.keys import Keys
from services.models import Models, Served
from services.parts import Parts
from services.rewriting import Rewriter

pytestmark = pytest.mark.ray
MESSAGES = [{"role": "user", "content": "Hello"}]
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


class Engine:
    """What an OpenAiIngress answers; keeps the bodies that it was given."""

    def __init__(self):
        self.bodies = []
        self.dies = False

    async def chat(self, body, request):
        self.bodies.append(body)
        if self.dies:
            raise RayActorError
        if not body.stream:
            return JSONResponse({"choices": [{"index": 0}], "usage": USAGE})
        return StreamingResponse(self._chunks(body), media_type="text/event-stream")

    completions = chat

    async def _chunks(self, body):
        # Two events in one piece, as ray.serve.llm batches them.
        yield 'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{"content":"b"}}]}\n\n'
        if body.stream_options.include_usage:
            yield 'data: {"choices":[],"usage":' + json.dumps(USAGE) + "}\n\ndata: [DONE]\n\n"
        else:
            yield "data: [DONE]\n\n"


@pytest.fixture
def served(tmp_path):
    engine, models, limits = Engine(), Models(), Limits(samples=4, max_tokens=50)
    model = Served("base", "r1", lambda: None, lambda prompts: None, openai=engine, takes_seed=False)
    models.replace([model], "base")
    recipe = Recipe(run="runs/x")
    rewriter = Rewriter(cascade_settings(recipe.rewrite, recipe.model.context_tokens), None, limits)
    log = tmp_path / "access.jsonl"
    parts = Parts(limits, Keys(), Gate(limits), models, rewriter, "math", 5.0, str(log))
    client = TestClient(build_app(parts, on_serve=True), raise_server_exceptions=False)
    yield client, engine, lambda: json.loads(log.read_text().splitlines()[-1])
    assert model.in_hand == 0
    assert parts.gate._slots._value == limits.active


def test_a_request_without_a_model_gets_the_default_and_its_revision(served):
    client, engine, logged = served
    first = client.post("/v1/chat/completions", json={"messages": MESSAGES}, headers={"x-request-id": "same"})
    client.post("/v1/completions", json={"prompt": "a"}, headers={"x-request-id": "same"})
    assert first.headers["x-model-revision"] == "r1"
    assert engine.bodies[0].model == "base"
    assert engine.bodies[0].request_id != engine.bodies[1].request_id
    assert (logged()["request_id"], logged()["prompt_tokens"], logged()["completion_tokens"]) == ("same", 5, 2)


@pytest.mark.parametrize("wanted", [False, True])
def test_a_stream_is_counted_and_shows_its_usage_only_to_who_asked(served, wanted):
    client, _, logged = served
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "stream": True, **options})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-model-revision"] == "r1"
    found = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert found[-1] == "[DONE]"
    chunks = [json.loads(line) for line in found[:-1]]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks[:2]] == ["a", "b"]
    assert [chunk.get("usage") for chunk in chunks[2:]] == ([USAGE] if wanted else [])
    assert logged()["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("route", "body", "status", "message"),
    [
        ("chat/completions", {"messages": MESSAGES, "n": 5}, 422, "n comes to 5, and the limit is 4"),
        (
            "chat/completions",
            {"messages": MESSAGES, "max_tokens": 51},
            422,
            "max_tokens comes to 51, and the limit is 50",
        ),
        ("chat/completions", {"messages": MESSAGES, "max_completion_tokens": 99}, 422, "max_tokens comes to 99"),
        ("chat/completions", {"messages": MESSAGES, "seed": 1}, 422, "takes no seed"),
        ("chat/completions", {"messages": MESSAGES, "model": "other"}, 404, "there is no model 'other'"),
        ("chat/completions", {"messages": "none"}, 400, "messages"),
        ("completions", {"prompt": ["a", "b", "c"], "n": 2}, 422, "n comes to 6"),
        ("completions", {"prompt": [1, 2, 3, 4, 5, 6]}, 200, ""),
        ("completions", {"prompt": "a", "max_tokens": 51}, 422, "max_tokens comes to 51"),
    ],
)
def test_limits_hold_before_the_engine_is_asked(served, route, body, status, message):
    client, engine, _ = served
    answer = client.post(f"/v1/{route}", json=body)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert message in answer.json()["error"]["message"]
        assert not engine.bodies


def test_a_dead_engine_is_a_503(served):
    client, engine, logged = served
    engine.dies = True
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_unavailable"
    assert answer.headers["retry-after"]
    assert logged()["status"] == 503
