"""Whatever a client's body holds, the answer is the client's to act on: a 400 that names the field as it was written."""

import ast
import inspect
import json
import traceback
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from ray.serve.llm.openai_api_models import ChatCompletionRequest, CompletionRequest
from starlette.testclient import TestClient
from vllm.exceptions import VLLMValidationError

from services.app import _add_handlers
from services.bodies import checked_route, parse_json
from services.errors import ApiError
from services.openai_bodies import ChatBody, CompletionBody
from services.refusals import refusal
from services.settings import Limits
from services.validation import invalid

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
TAG = {"type": "structural_tag", "structures": [], "triggers": []}
GOOD = {"/chat": {"messages": MESSAGES}, "/completions": {"prompt": "Hello"}}
KINDS = {"/chat": ChatCompletionRequest, "/completions": CompletionRequest}


@pytest.fixture(scope="module")
def client():
    app, routes = FastAPI(), APIRouter(route_class=checked_route(Limits()))
    _add_handlers(app, 1)

    @routes.post("/chat")
    async def chat(body: ChatBody):
        return {}

    @routes.post("/completions")
    async def completions(body: CompletionBody):
        return {}

    app.include_router(routes)
    return TestClient(app, raise_server_exceptions=False)


def post(client, route, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(route, content=content, headers={"content-type": "application/json"})


CHAT = [
    ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": ["a", "b"]}]}, "messages.0.content.0"),
    ({"messages": [*MESSAGES, {"role": "user", "content": [{"type": "smell"}]}]}, "messages.1.content.0.type"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages.0.content.0.text"),
    ({"messages": [{"role": "system", "content": {"text": "a"}}]}, "messages.0.content"),
    ({"messages": [{"content": "a"}]}, "messages.0.role"),
    ({"messages": ["Hello"]}, "messages.0"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": None}, "messages"),
    ({}, "messages"),
    (
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}]},
        "messages.0.tool_calls.0.function",
    ),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": ["add"]}]}, "messages.0.tool_calls.0"),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": 7}]}, "messages.0.tool_calls"),
    ({"response_format": {"type": "poem"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {**TAG, "structures": 3}}, "response_format"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"top_logprobs": -2, "logprobs": True}, "top_logprobs"),
    ({"top_logprobs": "all", "logprobs": True}, "top_logprobs"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ({"prompt_logprobs": -3}, "prompt_logprobs"),
    ({"prompt_logprobs": []}, "prompt_logprobs"),
    ({"logprob_token_ids": [1], "use_beam_search": True}, "logprob_token_ids"),
    ({"logprob_token_ids": [1]}, "logprob_token_ids"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream_options": 3, "stream": True}, "stream_options"),
    ({"structured_outputs": {"json": "{}", "regex": "a"}}, "structured_outputs"),
    ({"structured_outputs": "json"}, "structured_outputs"),
    (
        {"structured_outputs": {"regex": "a"}, "tools": [TOOL], "tool_choice": {"function": {"name": "add"}}},
        "tool_choice",
    ),
    ({"tools": []}, "tools"),
    ({"tools": [1]}, "tools.0"),
    ({"tools": [1], "tool_choice": {"type": "function", "function": {"name": "add"}}}, "tools.0"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "perhaps"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({"tools": [TOOL], "tool_choice": {"function": {}}}, "tool_choice.function.name"),
    ({"tools": [TOOL], "tool_choice": {"function": {"name": ""}}}, "tool_choice.function.name"),
    ({"tools": [TOOL], "tool_choice": {"function": {"name": "multiply"}}}, "tool_choice"),
    ({"continue_final_message": True, "add_generation_prompt": True}, "add_generation_prompt"),
    ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs.tokenize"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
    ({"guided_json": {}}, "guided_json"),
    ({"chat_template": "{{ messages }}"}, "chat_template"),
    ({"stop": [1]}, "stop.0"),
    ({"stop": ["a"] * 60}, "stop"),
    ({"messages": []}, "messages"),
    ({"messages": [{}] * 100_000}, "messages"),
    ({"messages": [{}] * 1000}, "messages.0.role"),
    ({"messages": MESSAGES * 1000 + [3]}, "messages.1000"),
    ({"tools": [[1]] * 50_000}, "tools"),
    ({"logit_bias": {str(number): "x" for number in range(50_000)}}, "logit_bias"),
    ({"stop_token_ids": [*range(50_000), "x"]}, "stop_token_ids.50000"),
]
COMPLETIONS = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": 3}, "prompt"),
    ({"prompt": {"text": "a"}}, "prompt"),
    ({"prompt": [["a"]]}, "prompt.0.0"),
    ({"prompt": ["a"] * 1025}, "prompt"),
    ({"prompt": ["a", 1]}, "prompt.1"),
    ({"prompt": [1.5] * 100_000}, "prompt.0"),
    ({"prompt_embeds": ["AAAA"]}, "prompt_embeds"),
    ({"prompt_embeds": ["AAAA"] * 1025}, "prompt_embeds"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    ({"structured_outputs": {"json": "{}", "regex": "a"}}, "structured_outputs"),
    ({"logprob_token_ids": [1], "use_beam_search": True}, "logprob_token_ids"),
    ({"logprob_token_ids": [1], "echo": True, "max_tokens": 0}, "logprob_token_ids"),
    ({"logprob_token_ids": [1]}, "logprob_token_ids"),
    ({"logprobs": "all"}, "logprobs"),
    ({"logprobs": -2}, "logprobs"),
    ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
    ({"prompt_logprobs": -3}, "prompt_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
]


@pytest.mark.parametrize(
    ("route", "change", "field"),
    [("/chat", *case) for case in CHAT] + [("/completions", *case) for case in COMPLETIONS],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_a_mistake_is_told_with_the_field_as_it_was_written(client, route, change, field):
    body = change if change == {} else GOOD[route] | change
    answer = post(client, route, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == field, error
    assert "retry-after" not in answer.headers
    assert not any(word in answer.text for word in ("function-wrap", "MessageParam", "Traceback", "list[", "NoneType"))


def raises_in(path):
    """(function, line) of each `raise VLLMValidationError` of a protocol file."""
    tree = ast.parse(path.read_text())
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        for node in ast.walk(function):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "VLLMValidationError":
                yield function.name, node.lineno


def line_of(error, path):
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return frames[-1].lineno if frames else None


@pytest.mark.parametrize(("route", "cases"), [("/chat", CHAT), ("/completions", COMPLETIONS)])
def test_the_cases_reach_every_refusal_of_vllms_models(route, cases):
    kind = KINDS[route]
    path = Path(inspect.getfile(kind.__mro__[1]))
    reached = set()
    for change in (change for change, _ in cases if len(str(change)) < 20_000):
        try:
            kind.model_validate(GOOD[route] | change)
        except VLLMValidationError as error:
            reached.add(line_of(error, path))
        except Exception:  # the types' own refusals
            continue
    validators = {line for function, line in raises_in(path) if not function.startswith("to_")}
    assert validators - reached <= set(), sorted(validators - reached)


HOSTILE = [None, "", "text", "\ud83d", 0, -1, 10**30, 1.5, True, [], [None], [[]], {}, {"a": {"b": []}}, ["\udc00"]]


ADAPTERS = {"/chat": TypeAdapter(ChatBody), "/completions": TypeAdapter(CompletionBody)}


def refused(route, body):
    """The error for a body; None if it is taken. Without HTTP, which would be most of the time here."""
    try:
        parsed = parse_json(json.dumps(body).encode())
        ADAPTERS[route].validate_python(parsed)
    except ApiError as error:
        return error
    except ValidationError as error:
        found = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        return invalid(RequestValidationError(found, body=parsed))
    return None


@pytest.mark.parametrize("route", sorted(KINDS))
def test_no_value_of_any_published_field_is_a_fault_of_ours(route):
    deep: list = []
    for _ in range(200):
        deep = [deep]
    for name in KINDS[route].model_fields:
        for value in [*HOSTILE, deep, "x" * 100_000, list(range(1000))]:
            error = refused(route, GOOD[route] | {name: value})
            assert error is None or error.status_code == 400, (name, repr(value)[:80])
            if value in ("\ud83d", ["\udc00"]):
                assert error is not None
                assert error.param.startswith(name)


def test_the_engines_own_exceptions_are_divided_by_kind():
    from vllm.exceptions import VLLMNotFoundError, VLLMServerError
    from vllm.v1.engine.exceptions import EngineDeadError

    told = {
        error: refusal(error, "id").error.code
        for error in (
            VLLMValidationError("no", parameter="n"),
            VLLMNotFoundError("no"),
            ValueError("no"),
            VLLMServerError("a secret path"),
            RuntimeError("a secret path"),
            EngineDeadError(),
        )
    }
    assert list(told.values()) == [400, 404, 400, 500, 500, 503]
    assert refusal(VLLMValidationError("no", parameter="n"), "id").error.param == "n"
    assert all("secret" not in refusal(error, "id").error.message for error in told)
