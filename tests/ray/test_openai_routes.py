"""Our layers around ray.serve.llm's OpenAI routes, with a scripted engine behind them: no Ray runs here."""

import json
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from ray.llm._internal.serve.core.configs.openai_api_models import ErrorInfo, ErrorResponse
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError
from starlette.testclient import TestClient

from offsft.cascade import cascade_settings
from offsft.config import Limits, Recipe
from offsft.sampling.handle import Whole
from services import control
from services.app import build_app
from services.gate import Gate
from services.keys import Keys
from services.models import Models, Served
from services.openai_engine import OpenAiEngine
from services.parts import Parts
from services.rewriting import Rewriter

pytestmark = pytest.mark.ray
MESSAGES = [{"role": "user", "content": "Hello"}]
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


class Handle:
    """A deployment's handle with a scripted engine behind it; keeps the bodies that it was given."""

    def __init__(self):
        self.bodies = []
        self.dies = False
        self.whole = SimpleNamespace(remote=self._whole)
        self.chat = self.completions = SimpleNamespace(remote=self._events)

    def options(self, *, stream):
        assert stream
        return self

    def _whole(self, route, body):
        return Answer(self._answered(route, body))

    async def _answered(self, route, body):
        self.bodies.append(body)
        if self.dies:
            raise RayActorError
        if body.max_tokens == 49:
            return Whole(400, "more than the context holds", "BadRequestError")
        if body.max_tokens == 47:
            return Whole(500, "a path of the server", "EngineDeadError")
        return Whole(200, json.dumps({"choices": [{"index": 0}], "usage": USAGE}), "", 5, 2)

    def _events(self, body):
        self.answers = Answers(self._chunks(body))
        return self.answers

    async def _chunks(self, body):
        self.bodies.append(body)
        if self.dies:
            raise RayActorError
        if body.max_tokens == 49:
            message = "more than the context holds"
            yield [ErrorResponse(error=ErrorInfo(message=message, type="BadRequestError", code=400))]
        # Two events in one piece, as ray.serve.llm batches them.
        yield [f'data: {{"choices":[{{"delta":{{"content":"{letter}"}}}}]}}\n\n' for letter in "ab"]
        assert body.stream_options.include_usage
        if body.max_tokens == 48:
            raise RayActorError
        yield ['data: {"choices":[],"usage":' + json.dumps(USAGE) + "}\n\n", "data: [DONE]\n\n"]


class Answer:
    """As a DeploymentResponse."""

    def __init__(self, answered):
        self._answered = answered

    def __await__(self):
        return self._answered.__await__()


class Answers:
    """As a DeploymentResponseGenerator."""

    def __init__(self, chunks):
        self._chunks = chunks
        self.cancelled = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await anext(self._chunks)

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def served(tmp_path):
    engine, models, limits = Handle(), Models(), Limits(samples=4, max_tokens=50)
    model = Served("base", "r1", lambda: None, lambda prompts: None, openai=OpenAiEngine(engine), takes_seed=False)
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
    client, engine, logged = served
    options = {"stream_options": {"include_usage": True}} if wanted else {}
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "stream": True, **options})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-model-revision"] == "r1"
    found = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert found[-1] == "[DONE]"
    chunks = [json.loads(line) for line in found[:-1]]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks[:2]] == ["a", "b"]
    assert [chunk.get("usage") for chunk in chunks[2:]] == ([USAGE] if wanted else [])
    assert not engine.answers.cancelled
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


@pytest.mark.parametrize("stream", [False, True])
def test_a_dead_engine_is_a_503(served, stream):
    client, engine, logged = served
    engine.dies = True
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "stream": stream})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_unavailable"
    assert answer.headers["retry-after"]
    assert logged()["status"] == 503


def test_an_engine_that_dies_in_a_stream_ends_it_with_an_error_event(served):
    client, engine, _ = served
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "stream": True, "max_tokens": 48})
    assert engine.answers.cancelled
    *_, error, end = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert json.loads(error)["error"]["code"] == "engine_unavailable"
    assert end == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_told_as_it_says_it(served, stream):
    client, _, logged = served
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 49, "stream": stream})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "more than the context holds"
    assert logged()["status"] == 400


def test_a_failure_of_the_engine_tells_nothing_of_the_server(served):
    client, _, _ = served
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 47})
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "the engine did not answer: EngineDeadError; try again"


@pytest.mark.parametrize(
    ("answers", "running", "expected"),
    [(["r2", "r2"], 2, ["r2", "r2"]), (["r2"], 2, []), (None, 1, [])],
    ids=["all", "one is being reconfigured", "all are"],
)
def test_a_switch_hears_every_replica_of_the_gateway_or_none(monkeypatch, answers, running, expected):
    deployment = SimpleNamespace(replica_states={"RUNNING": running})
    status = SimpleNamespace(applications={control.GATEWAY: SimpleNamespace(deployments={"Gateway": deployment})})
    monkeypatch.setattr(control.serve, "status", lambda: status)

    def broadcast(method, *arguments):
        if answers is None:
            raise DeploymentUnavailableError(DeploymentID(name="Gateway", app_name="gateway"))
        return SimpleNamespace(results=lambda: answers)

    assert control._each(SimpleNamespace(broadcast=broadcast), "revision", "base") == expected
