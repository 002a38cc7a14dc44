"""Servers for a remote model: one that plays turns, and our own application over a scripted engine."""

import asyncio
import json
import socket
import threading
import time
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config import PromptConfig
from offsft.prompts import Prompts
from offsft.protocols import SamplingParams
from tests.unit.services.services_app import make_parts, served

PROMPTS = Prompts(byte_tokenizer(), PromptConfig())
GREETING = PROMPTS.response("Hello \\boxed{7}")


@contextmanager
def running(app):
    """Serve an application on a loopback port during the block; yields its address."""
    place = socket.socket()
    place.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([place],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()


class Server:
    """Plays `turns`, functions of the request's body, one per request; the last repeats. Records the requests."""

    def __init__(self, *turns):
        self.turns = list(turns)
        self.bodies, self.headers, self.times_s = [], [], []
        self.at_once = self.most_at_once = 0
        self.app = Starlette(routes=[Route("/v1/completions", self._answer, methods=["POST"])])

    async def _answer(self, request):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.times_s.append(time.monotonic())
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.json())
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        try:
            return await turn(self.bodies[-1])
        finally:
            self.at_once -= 1


async def good(body, **choice):
    """An answer like vLLM's; `choice` replaces fields."""
    whole = {
        "text": PROMPTS.text(GREETING[:-1]),
        "finish_reason": "stop",
        "token_ids": GREETING,
        "logprobs": {"token_logprobs": [-0.5] * len(GREETING)},
    }
    choices = [{"index": index, **whole, **choice} for index in reversed(range(body.get("n", 1)))]
    return JSONResponse({"choices": choices, "usage": {"prompt_tokens": 10, "completion_tokens": 7 * len(choices)}})


def failing(status, content=b"no", **headers):
    async def answer(body):
        return Response(content, status_code=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def answering(tree):
    async def answer(body):
        return JSONResponse(tree)

    return answer


async def hanging(body):
    await asyncio.sleep(2)


class ScriptedOpenAi:
    """A fake engine for the application's OpenAI routes, with the script of the other tests."""

    def __init__(self, model):
        self._model = model

    async def whole(self, route, body):
        from offsft.inference.engines.serve import WholeAnswer

        assert route == "completions"
        _, sampler = await self._model.open()
        params = SamplingParams(body.max_tokens, body.temperature, body.top_p)
        choices, tokens = [], 0
        for index, each in enumerate(await sampler.sample(body.prompt, n=body.n, params=params)):
            logprobs = {"token_logprobs": each.logprobs}
            choice = {"index": index, "text": each.text, "logprobs": logprobs}
            if body.return_token_ids:
                choice["token_ids"] = each.token_ids
            choice["finish_reason"] = each.finish_reason
            if body.prompt_logprobs is not None:
                choice["prompt_logprobs"] = [None, *({str(token): {"logprob": -1.0}} for token in body.prompt[1:])]
            choices.append(choice)
            tokens += len(each.token_ids)
        usage = {"prompt_tokens": len(body.prompt), "completion_tokens": tokens}
        return WholeAnswer(200, json.dumps({"choices": choices, "usage": usage}), "", *usage.values())


def our_application():
    """The services with OpenAI's routes, with the script of their other tests."""
    from services.app import build_app

    model = served()
    model.openai = ScriptedOpenAi(model)
    return build_app(make_parts(models=[model], requests_per_minute=1e6), on_serve=True)
