"""The application over a scripted sampler, shared by several tests."""

import json
import re
import time

import httpx
from starlette.testclient import TestClient

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import PromptConfig, Recipe
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.prompts import Prompts
from offsft.protocols import Verdict
from offsft.records import Outcome
from offsft.rewrite.cascade import cascade_settings
from offsft.verify.math import judge
from services.admission import Gate
from services.app import build_app
from services.auth import Keys
from services.dependencies import Dependencies
from services.rewriting import Rewriter
from services.served_models import Models, Served
from services.settings import Limits

RECIPE = Recipe.model_validate(
    {
        "run": "runs/test",
        "model": {"context_tokens": 1000},
        "rewrite": {
            "max_tokens": 200,
            "stages": {"self": {"waves": [2]}, "guided": {"waves": [2]}},
            "guards": {"support": None, "first_support": None},  # scripted log-probs support nothing
        },
    }
)


def script(prompt, number):
    """An answer that is right at the stage that the problem's text names."""
    found = re.search(r"(self|guided|expert) (\d+)", prompt)
    if found is None:
        return "2"  # the canary
    stage, answer = found.groups()
    right = stage == ("guided" if "one way to work it out" in prompt else "self")
    return f"Say \\boxed{{{int(answer) + (0 if right else 1)}}}"


async def verify(response, problem):
    try:
        return judge(response, problem.answer)
    except Exception:
        return Verdict(Outcome.ERROR)


def scripted(prompts):
    return ScriptedSampler(script, encode=prompts.response, decode=prompts.text)


def served(name="base", revision="r1", sampler=scripted, **more):
    return Served(name, revision, lambda: Prompts(byte_tokenizer(), PromptConfig()), sampler, **more)


def make_parts(
    *,
    models=None,
    default="base",
    keys=None,
    access_log=None,
    ready_timeout_s=60.0,
    cors_origins=(),
    weights=None,
    **limits,
):
    limits = Limits(**limits)
    table = Models()
    table.replace(models or [served()], default)
    cascade = cascade_settings(RECIPE.rewrite, RECIPE.model.context_tokens)
    return Dependencies(
        limits=limits,
        keys=keys or Keys(),
        gate=Gate(limits, weights),
        models=table,
        rewriter=Rewriter(cascade, verify, limits),
        verifier_kind="math",
        ready_timeout_s=ready_timeout_s,
        access_log=access_log,
        cors_origins=cors_origins,
    )


def client_of(parts):
    return TestClient(build_app(parts, on_serve=False), raise_server_exceptions=False)


def async_client(parts):
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_app(parts, on_serve=False)), base_url="http://test")


def lines_of(log, least=1):
    """The access log's lines, once there are as many; a thread of its own writes them."""
    for _ in range(2000):
        lines = log.read_text().splitlines() if log.exists() else []
        if len(lines) >= least:
            return [json.loads(line) for line in lines]
        time.sleep(0.01)
    raise AssertionError(f"{len(lines)} lines, not {least}")


def problem(fate="self", number=7, **more):
    return {"problem": f"{fate} {number}", "solution": f"{number} it is. \\boxed{{{number}}}", **more}


def events(text):
    """(event, data) of each server-sent event."""
    found = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event"), fields["data"]))
    return found
