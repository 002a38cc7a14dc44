"""Our layers around ray.serve.llm's OpenAI routes, with a scripted engine behind them: no Ray runs here."""

import json
import time
from types import SimpleNamespace

import pytest
from ray.exceptions import RayActorError
from ray.llm._internal.serve.core.configs.openai_api_models import ErrorInfo, ErrorResponse
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError
from starlette.testclient import TestClient

from offsft.config import PromptConfig, Recipe
from offsft.inference.engines.serve import WholeAnswer
from offsft.prompts import Prompts
from offsft.rewrite.cascade import cascade_settings
from services import deploy
from services.admission import Gate
from services.app import build_app
from services.auth import Keys
from services.dependencies import Dependencies
from services.openai_engine import OpenAiEngine
from services.rewriting import Rewriter
from services.served_models import Models, Served
from services.settings import Limits
from tests.unit.prompts.lookalikes import lookalike

pytestmark = pytest.mark.ray
MESSAGES = [{"role": "user", "content": "Hello"}]
REFUSALS = {
    49: (400, "more than the context holds", "BadRequestError", "input_tokens"),
    44: (400, "max_tokens must be even. (parameter=x, value=44)", "BadRequestError", None),
    46: (400, "a tool parser is needed", "BadRequestError", "tool_choice"),
    47: (503, "the engine died", "EngineDeadError", None),
    45: (500, "the engine could not answer this request", "InternalServerError", None),
}
"""What the scripted engine answers to that many tokens: status, message, kind, field."""
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


class Handle:
    """A deployment's handle with a scripted engine behind it; records the bodies that it receives."""

    def __init__(self):
        self.bodies = []
        self.dies = False
        self.whole = SimpleNamespace(remote=self._whole)
        self.events = SimpleNamespace(remote=self._events)

    def options(self, *, stream):
        assert stream
        return self

    def _whole(self, route, body, *hints):
        return Answer(self._answered(route, body))

    async def _answered(self, route, body):
        self.bodies.append(body)
        if self.dies:
            raise RayActorError
        if body.max_tokens in REFUSALS:
            status, message, kind, param = REFUSALS[body.max_tokens]
            return WholeAnswer(status, message, kind, param)
        return WholeAnswer(200, json.dumps({"choices": [{"index": 0}], "usage": USAGE}), "", None, 5, 2)

    def _events(self, route, body, *hints):
        self.answers = Answers(self._chunks(body))
        return self.answers

    async def _chunks(self, body):
        self.bodies.append(body)
        if self.dies:
            raise RayActorError
        if body.max_tokens in REFUSALS:
            status, message, kind, param = REFUSALS[body.max_tokens]
            yield [ErrorResponse(error=ErrorInfo(message=message, type=kind, code=status, param=param))]
        if body.max_tokens == 40:
            error = {"message": "Internal server error", "type": "InternalServerError", "code": 500, "param": None}
            yield ["data: " + json.dumps({"error": error}) + "\n\n", "data: [DONE]\n\n"]
        # Two events in one piece, as ray.serve.llm batches them.
        yield [f'data: {{"choices":[{{"delta":{{"content":"{letter}"}}}}]}}\n\n' for letter in "ab"]
        assert body.stream_options.include_usage
        if body.max_tokens == 48:
            raise RayActorError
        yield ['data: {"choices":[],"usage":' + json.dumps(USAGE) + "}\n\n", "data: [DONE]\n\n"]


class Answer:
    """A fake DeploymentResponse."""

    def __init__(self, answered):
        self._answered = answered

    def __await__(self):
        return self._answered.__await__()


class Answers:
    """A fake DeploymentResponseGenerator."""

    def __init__(self, chunks):
        self._chunks = chunks
        self.cancelled = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await anext(self._chunks)

    def cancel(self):
        self.cancelled = True


def thinkless():
    """Prompts of a recipe with `model.thinking=off`."""
    return Prompts(lookalike("qwen3"), PromptConfig(), "off")


def logged_last(log, parts):
    """The last line of the access log, once its thread has written what there is."""
    for _ in range(1000):
        lines = log.read_text().splitlines()
        if len(lines) == parts["sent"]:
            return json.loads(lines[-1])
        time.sleep(0.01)
    raise AssertionError(lines)


@pytest.fixture
def served(tmp_path):
    engine, models, limits = Handle(), Models(), Limits(samples=4, max_tokens=50)
    model = Served("base", "r1", thinkless, lambda prompts: None, openai=OpenAiEngine(engine, "base"), takes_seed=False)
    models.replace([model], "base")
    recipe = Recipe(run="runs/x")
    rewriter = Rewriter(cascade_settings(recipe.rewrite, recipe.model.context_tokens), None, limits)
    log = tmp_path / "access.jsonl"
    parts = Dependencies(limits, Keys(), Gate(limits), models, rewriter, "math", 5.0, str(log))
    client, counted = TestClient(build_app(parts, on_serve=True), raise_server_exceptions=False), {"sent": 0}
    send = client.post

    def post(*args, **more):
        counted["sent"] += 1
        return send(*args, **more)

    client.post = post
    yield client, engine, lambda: logged_last(log, counted)
    assert model.in_hand == 0
    assert parts.gate.running == 0


def test_a_request_without_a_model_gets_the_default_and_its_revision(served):
    client, engine, logged = served
    first = client.post("/v1/chat/completions", json={"messages": MESSAGES}, headers={"x-request-id": "same"})
    client.post("/v1/completions", json={"prompt": "a"}, headers={"x-request-id": "same"})
    assert first.headers["x-model-revision"] == "r1"
    assert engine.bodies[0].model == "base"
    assert engine.bodies[0].request_id != engine.bodies[1].request_id
    assert (logged()["request_id"], logged()["prompt_tokens"], logged()["completion_tokens"]) == ("same", 5, 2)


@pytest.mark.parametrize("own", [{}, {"enable_thinking": True, "tone": "dry"}])
def test_a_chat_is_rendered_and_ended_as_the_recipe_trains_unless_the_client_says_otherwise(served, own):
    client, engine, _ = served
    client.post("/v1/chat/completions", json={"messages": MESSAGES, "chat_template_kwargs": own, "stop_token_ids": [3]})
    client.post("/v1/completions", json={"prompt": "a"})
    chat, completion = engine.bodies
    assert chat.chat_template_kwargs == {"enable_thinking": False, **own}
    assert chat.stop_token_ids == [3, thinkless().end_of_turn]
    assert not completion.stop_token_ids


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
@pytest.mark.parametrize(
    ("tokens", "status", "code", "param"),
    [
        (49, 400, "context_length_exceeded", "messages"),
        (46, 400, "invalid_value", "tool_choice"),
        (44, 400, "invalid_value", "max_tokens"),
        (47, 503, "engine_unavailable", None),
        (45, 500, "internal_error", None),
    ],
)
def test_what_the_engine_answers_is_told_by_whose_fault_it_is(served, stream, tokens, status, code, param):
    client, _, logged = served
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": tokens, "stream": stream})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert ("retry-after" in answer.headers) is (status == 503)
    assert logged()["status"] == status


def test_a_fault_of_the_engines_code_in_a_stream_has_our_form(served):
    client, _, logged = served
    answer = client.post("/v1/chat/completions", json={"messages": MESSAGES, "max_tokens": 40, "stream": True})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert logged()["request_id"] in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("answers", "running", "expected"),
    [(["r2", "r2"], 2, ["r2", "r2"]), (["r2"], 2, []), (None, 1, [])],
    ids=["all", "one is being reconfigured", "all are"],
)
def test_a_switch_hears_every_replica_of_the_gateway_or_none(monkeypatch, answers, running, expected):
    deployment = SimpleNamespace(replica_states={"RUNNING": running})
    status = SimpleNamespace(applications={deploy.GATEWAY: SimpleNamespace(deployments={"Gateway": deployment})})
    monkeypatch.setattr(deploy.serve, "status", lambda: status)

    def broadcast(method, *arguments):
        if answers is None:
            raise DeploymentUnavailableError(DeploymentID(name="Gateway", app_name="gateway"))
        return SimpleNamespace(results=lambda: answers)

    assert deploy._each(SimpleNamespace(broadcast=broadcast), "revision", "base") == expected


def test_a_seed_on_a_cpu_has_no_effect_and_where_it_would_have_had_one_this_is_said(served):
    client, engine, _ = served
    greedy = client.post("/v1/completions", json={"prompt": "a", "seed": 1234, "temperature": 0})
    sampled = client.post("/v1/completions", json={"prompt": "a", "seed": 1234, "surprise": 1})
    assert (greedy.status_code, sampled.status_code) == (200, 200)
    assert "x-ignored-fields" not in greedy.headers
    assert sampled.headers["x-ignored-fields"] == "surprise,seed"
    assert [body.seed for body in engine.bodies] == [None, None]


def test_a_stream_is_for_proxies_too_and_a_priority_stays_here(served):
    client, engine, _ = served
    answer = client.post("/v1/completions", json={"prompt": "a", "stream": True, "priority": 7, "max_tokens": 3})
    assert (answer.headers["x-accel-buffering"], answer.headers["cache-control"]) == ("no", "no-store")
    assert engine.bodies[0].priority == 0
    refused = client.post("/v1/completions", json={"prompt": "a", "stream": True, "echo": True, "logprobs": 1, "n": 2})
    assert refused.status_code == 422
    assert "not streamed with n above 1" in refused.text
