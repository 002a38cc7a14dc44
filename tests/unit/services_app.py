"""The application over a scripted sampler, as several tests use it."""

import re

import httpx
from starlette.testclient import TestClient

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.cascade import cascade_settings
from offsft.config import Limits, Prompt, Recipe
from offsft.prompts import Prompts
from offsft.protocols import Verdict
from offsft.records import Outcome
from offsft.sampling.scripted import ScriptedSampler
from offsft.verify.math import judge
from services.app import build_app
from services.gate import Gate
from services.keys import Keys
from services.models import Models, Served
from services.parts import Parts
from services.rewriting import Rewriter

RECIPE = Recipe.model_validate(
    {
        "run": "runs/test",
        "model": {"context_tokens": 1000},
        "rewrite": {"max_tokens": 200, "self_waves": [2], "guided_waves": [2]},
    }
)


def script(prompt, number):
    """Right at the stage that the problem's text names."""
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
    return ScriptedSampler(script, encode=prompts.response, decode=prompts._tokenizer.decode)


def served(name="base", revision="r1", sampler=scripted, **more):
    return Served(name, revision, lambda: Prompts(byte_tokenizer(), Prompt()), sampler, **more)


def make_parts(*, models=None, default="base", keys=None, access_log=None, ready_timeout_s=60.0, **limits):
    limits = Limits(**limits)
    table = Models()
    table.replace(models or [served()], default)
    cascade = cascade_settings(RECIPE.rewrite, RECIPE.model.context_tokens)
    return Parts(
        limits=limits,
        keys=keys or Keys(),
        gate=Gate(limits),
        models=table,
        rewriter=Rewriter(cascade, verify, limits),
        verifier_kind="math",
        ready_timeout_s=ready_timeout_s,
        access_log=access_log,
    )


def client_of(parts):
    return TestClient(build_app(parts, on_serve=False), raise_server_exceptions=False)


def async_client(parts):
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_app(parts, on_serve=False)), base_url="http://test")


def problem(fate="self", number=7, **more):
    return {"problem": f"{fate} {number}", "solution": f"{number} it is. \\boxed{{{number}}}", **more}


def events(text):
    """(event, data) of server-sent events."""
    found = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event"), fields["data"]))
    return found
