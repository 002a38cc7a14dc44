"""The HTTP application under load: streams, batches, full queues, deadlines, disconnects, changing models."""

import asyncio
import json

import pytest
from services_app import async_client, events, lines_of, make_parts, problem, scripted, served

from services.app import build_app


class SlowSampler:
    """A scripted sampler that answers when released; counts running and cancelled requests."""

    def __init__(self, sampler):
        self._sampler = sampler
        self.open = asyncio.Event()
        self.working = 0
        self.cancelled = 0

    async def sample(self, prompt_ids, *, n, params):
        self.working += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.working -= 1
        return await self._sampler.sample(prompt_ids, n=n, params=params)

    async def score(self, prompt_ids, response_ids):
        return await self._sampler.score(prompt_ids, response_ids)


def slow_parts(**more):
    """Dependencies with one slow model; its sampler exists once a request has opened it."""
    slow = []

    def make(prompts):
        slow.append(SlowSampler(scripted(prompts)))
        return slow[0]

    return make_parts(models=[served(sampler=make)], **more), slow


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def scope_of(route):
    return {
        "type": "http",
        "method": "POST",
        "path": route,
        "raw_path": route.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }


def test_events_tell_each_attempt_and_end_with_the_same_result():
    async def run():
        async with async_client(make_parts()) as client:
            streamed = await client.post("/v1/rewrite", json=problem("guided", stream=True))
            plain = await client.post("/v1/rewrite", json=problem("guided", keep_attempts=True))
            return streamed, plain.json()

    streamed, plain = asyncio.run(run())
    assert streamed.headers["content-type"].startswith("text/event-stream")
    told = events(streamed.text)
    assert [name for name, _ in told] == [
        "start",
        "stage",
        "attempt",
        "attempt",
        "stage",
        "attempt",
        "attempt",
        "result",
        None,
    ]
    assert told[-1][1] == "[DONE]"
    result = json.loads(told[-2][1])
    assert json.loads(told[0][1]) == {
        "id": result["id"],
        "model": "base",
        "revision": "r1",
        "stages": ["self", "guided", "expert"],
    }
    assert json.loads(told[1][1]) == {"stage": "self", "n": 2}
    assert [json.loads(data) for name, data in told if name == "attempt"] == result["attempts"]
    apart = {"id", "timing"}
    assert {k: v for k, v in result.items() if k not in apart} == {k: v for k, v in plain.items() if k not in apart}


def test_a_batch_gives_one_line_a_problem_whatever_becomes_of_each():
    problems = [problem("self", 1), {"problem": "no", "solution": "answer"}, problem("expert", 3), problem("guided", 4)]

    async def run():
        async with async_client(make_parts(batch_at_once=2, batch_problems=4)) as client:
            answer = await client.post("/v1/rewrite/batch", json={"problems": problems})
            many = await client.post("/v1/rewrite/batch", json={"problems": problems * 2})
            return answer, many

    answer, many = asyncio.run(run())
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = {line["index"]: line for line in map(json.loads, answer.text.splitlines())}
    assert sorted(lines) == [0, 1, 2, 3]
    assert [lines[i]["result"]["source"] for i in (0, 2, 3)] == ["self", "expert", "guided"]
    assert "give the `answer` beside it" in lines[1]["error"]["message"]
    assert many.status_code == 422
    assert "the batch has 8 problems, and the limit is 4" in many.text


def test_a_full_queue_refuses_at_once_and_is_open_again_after():
    async def run():
        parts, slow = slow_parts(active=4, queued=3, retry_after_s=7)  # two problems of two samples
        async with async_client(parts) as client:

            async def post(i):
                return await client.post("/v1/rewrite", json=problem("self", i))

            first = [asyncio.ensure_future(post(i)) for i in range(5)]
            await until(lambda: slow and slow[0].working == 2 and parts.gate.waiting == 3)
            refused = await asyncio.gather(*(post(i) for i in range(20)))  # while the others wait
            assert not any(task.done() for task in first)
            slow[0].open.set()
            return await asyncio.gather(*first), refused, await post(9)

    answered, refused, after = asyncio.run(run())
    assert {answer.status_code for answer in answered} == {200}
    assert {answer.status_code for answer in refused} == {503}
    assert {answer.headers["retry-after"] for answer in refused} == {"8"}
    assert refused[0].json()["error"]["code"] == "overloaded"
    assert answered[-1].json()["timing"]["queued_seconds"] > 0
    assert after.status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_ends_at_its_deadline(stream):
    async def run():
        parts, slow = slow_parts(deadline_s=0.5)
        await parts.models.find(None).open()
        async with async_client(parts) as client:
            answer = await client.post("/v1/rewrite", json=problem(stream=stream))
        return answer, slow[0]

    answer, slow = asyncio.run(run())
    assert (slow.working, slow.cancelled) == (0, 1)
    if stream:
        assert json.loads(events(answer.text)[-2][1])["error"]["code"] == "deadline_exceeded"
    else:
        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/rewrite", problem()),
        ("/v1/rewrite", problem(stream=True)),
        ("/v1/rewrite/batch", {"problems": [problem("self", i) for i in range(3)]}),
    ],
    ids=["plain", "stream", "batch"],
)
def test_a_client_that_goes_away_ends_its_sampling(route, body, tmp_path):
    log = tmp_path / "access.jsonl"

    async def run():
        parts, slow = slow_parts(access_log=str(log))
        app, gone, content = build_app(parts, on_serve=False), asyncio.Event(), json.dumps(body).encode()
        messages = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        call = asyncio.ensure_future(app(scope_of(route), receive, send))
        await until(lambda: slow and slow[0].working)
        gone.set()
        await asyncio.wait_for(call, 30)
        return parts, slow[0]

    parts, slow = asyncio.run(run())
    assert slow.working == 0
    assert slow.cancelled >= 1
    assert parts.models.find(None).in_hand == 0
    assert parts.gate.running == 0
    assert lines_of(log)[0]["status"] == 499


def test_a_client_that_leaves_at_a_streams_last_event_had_its_whole_answer(tmp_path):
    log = tmp_path / "access.jsonl"

    async def run():
        parts, done = make_parts(access_log=str(log)), asyncio.Event()
        messages = [{"type": "http.request", "body": json.dumps(problem(stream=True)).encode(), "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await done.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message.get("body", b"").endswith(b"data: [DONE]\n\n"):
                done.set()
                await asyncio.sleep(0.05)  # the answer ends after the client's disconnect

        await asyncio.wait_for(build_app(parts, on_serve=False)(scope_of("/v1/rewrite"), receive, send), 60)

    asyncio.run(run())
    assert lines_of(log)[0]["status"] == 200


@pytest.mark.parametrize("body", [b"", b'{"problem": "se'], ids=["before its body", "in the middle of its body"])
@pytest.mark.parametrize("route", ["/v1/rewrite", "/v1/rewrite/batch", "/v1/verify"])
def test_a_client_that_goes_away_before_its_request_is_read_is_logged_as_gone(route, body, tmp_path):
    log = tmp_path / "access.jsonl"
    messages = [{"type": "http.request", "body": body, "more_body": True}] if body else []

    async def receive():
        return messages.pop() if messages else {"type": "http.disconnect"}

    async def send(message):
        pass

    asyncio.run(build_app(make_parts(access_log=str(log)), on_serve=False)(scope_of(route), receive, send))
    assert lines_of(log)[0]["status"] == 499


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/rewrite", problem()),
        ("/v1/rewrite", problem(stream=True)),
        ("/v1/rewrite/batch", {"problems": [problem()]}),
    ],
    ids=["plain", "stream", "batch"],
)
def test_a_client_that_goes_away_while_it_waits_leaves_its_place_to_others(route, body, tmp_path):
    log = tmp_path / "access.jsonl"

    async def run():
        parts, slow = slow_parts(active=1, queued=1, access_log=str(log))
        app, gone = build_app(parts, on_serve=False), asyncio.Event()
        messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        async with async_client(parts) as client:
            working = asyncio.ensure_future(client.post("/v1/rewrite", json=problem()))
            await until(lambda: slow and slow[0].working)
            waiting = asyncio.ensure_future(app(scope_of(route), receive, send))
            await until(lambda: parts.gate.waiting == 1)
            gone.set()
            await asyncio.wait_for(waiting, 30)
            logged = lines_of(log)[0]["status"]
            after = asyncio.ensure_future(client.post("/v1/rewrite", json=problem()))
            await until(lambda: parts.gate.waiting == 1 or after.done())
            slow[0].open.set()
            return logged, (await working).status_code, (await after).status_code, parts.gate.running

    assert asyncio.run(run()) == (499, 200, 200, 0)


def test_a_request_keeps_the_model_that_it_began_with():
    async def run():
        parts, slow = slow_parts()
        old = parts.models.find(None)
        old.application = "generator-old"
        async with async_client(parts) as client:
            begun = asyncio.ensure_future(client.post("/v1/rewrite", json=problem("guided")))
            await until(lambda: slow and slow[0].working)
            parts.models.replace([served("base", "r2", application="generator-new")], "base")
            later = await client.post("/v1/rewrite", json=problem("guided"))
            in_hand = parts.models.in_hand("generator-old")
            slow[0].open.set()
            return (await begun).json(), later.json(), in_hand, parts.models.in_hand("generator-old")

    begun, later, during, after = asyncio.run(run())
    assert (begun["revision"], begun["source"]) == ("r1", "guided")
    assert later["revision"] == "r2"
    assert (during, after) == (1, 0)


def test_an_engine_that_hangs_is_not_ready():
    async def run():
        parts, _ = slow_parts(ready_timeout_s=0.3)
        await parts.models.find(None).open()
        async with async_client(parts) as client:
            return await client.get("/readyz"), await client.get("/healthz")

    ready, alive = asyncio.run(run())
    assert ready.status_code == 503
    assert "base has not sampled a token within 0.3 s" in ready.json()["error"]["message"]
    assert alive.status_code == 200


def test_an_engine_that_works_for_others_is_ready_although_the_canary_waits(monkeypatch):
    monkeypatch.setattr("services.app._FRESH_S", 60.0)

    class Busy:
        """A sampler that never answers the canary, and answers all other requests."""

        def __init__(self, sampler):
            self._sampler = sampler
            self.asked = 0

        async def sample(self, prompt_ids, *, n, params):
            if params.max_tokens == 1:
                self.asked += 1
                await asyncio.Event().wait()
            return await self._sampler.sample(prompt_ids, n=n, params=params)

        async def score(self, prompt_ids, response_ids):
            return await self._sampler.score(prompt_ids, response_ids)

    async def run():
        busy = []
        parts = make_parts(models=[served(sampler=lambda prompts: busy.append(Busy(scripted(prompts))) or busy[0])])
        async with async_client(parts) as client:
            asking = asyncio.ensure_future(client.get("/readyz"))
            await until(lambda: busy and busy[0].asked)
            assert not asking.done()
            await client.post("/v1/rewrite", json=problem("self"))
            return await asking, await client.get("/readyz"), busy[0].asked

    first, second, asked = asyncio.run(run())
    assert (first.status_code, second.status_code) == (200, 200)
    assert asked == 1, "the rewrite's output is proof enough for the second"


def test_a_client_that_sends_slowly_holds_no_slot():
    async def run():
        parts = make_parts(active=1, queued=0)
        app, rest, asked, sent = build_app(parts, on_serve=False), asyncio.Event(), asyncio.Event(), []
        body = json.dumps(problem()).encode()
        messages = [{"type": "http.request", "body": body[:9], "more_body": True}]

        async def receive():
            if messages:
                return messages.pop()
            if not rest.is_set():
                asked.set()
                await rest.wait()
                return {"type": "http.request", "body": body[9:], "more_body": False}
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        slow = asyncio.ensure_future(app(scope_of("/v1/rewrite"), receive, send))
        await asked.wait()
        async with async_client(parts) as client:
            other = await client.post("/v1/rewrite", json=problem())
        rest.set()
        await asyncio.wait_for(slow, 60)
        return other.status_code, sent[0]["status"]

    assert asyncio.run(run()) == (200, 200)


def test_a_client_that_does_not_read_its_stream_is_gone_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("services.streaming.UNREAD_S", 0.3)
    log = tmp_path / "access.jsonl"

    async def run():
        parts = make_parts(access_log=str(log))
        await parts.models.find(None).open()
        messages = [{"type": "http.request", "body": json.dumps(problem(stream=True)).encode(), "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await asyncio.Event().wait()

        async def send(message):
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        app = build_app(parts, on_serve=False)
        call = asyncio.ensure_future(app(scope_of("/v1/rewrite"), receive, send))
        await asyncio.wait([call], timeout=30)
        assert call.done()
        return parts

    parts = asyncio.run(run())
    assert parts.models.find(None).in_hand == 0
    assert parts.gate.running == 0
    assert lines_of(log)[0]["status"] == 499


def test_a_stream_that_waits_shows_a_sign_of_life_and_then_its_events():
    async def run():
        parts, slow = slow_parts(active=1, comment_s=0.05)
        async with async_client(parts) as client:
            first = asyncio.ensure_future(client.post("/v1/rewrite", json=problem()))
            await until(lambda: slow and slow[0].working)
            waiting = asyncio.ensure_future(client.post("/v1/rewrite", json=problem(stream=True)))
            await until(lambda: parts.gate.waiting)
            await asyncio.sleep(0.2)
            slow[0].open.set()
            await first
            return await waiting

    answer = asyncio.run(run())
    assert answer.text.startswith(": waiting\n\n: waiting\n\n")
    assert (answer.headers["x-accel-buffering"], answer.headers["cache-control"]) == ("no", "no-store")
    shown = [block for block in answer.text.split("\n\n") if not block.startswith(":")]
    assert shown[0].startswith("event: start")
    assert shown[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize("change", [{"solution": "no box"}, {"stages": ["other"]}, {"problem": "x" * 2000}])
def test_a_rewrite_that_cannot_be_is_refused_by_its_status_before_its_stream_begins(change):
    async def run():
        async with async_client(make_parts(problem_tokens=1000)) as client:
            return await client.post("/v1/rewrite", json=problem(stream=True) | change)

    answer = asyncio.run(run())
    assert answer.status_code == 422
    assert answer.json()["error"]["message"]


def test_a_client_that_knows_no_chunks_gets_a_stream_in_one_piece():
    async def run():
        sent, body = [], json.dumps(problem(stream=True)).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if messages:
                return messages.pop()
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await build_app(make_parts(), on_serve=False)(scope_of("/v1/rewrite") | {"http_version": "1.0"}, receive, send)
        return sent

    start, *bodies = asyncio.run(run())
    assert len(bodies) == 1
    assert dict(start["headers"])[b"content-length"] == str(len(bodies[0]["body"])).encode()
    assert bodies[0]["body"].endswith(b"data: [DONE]\n\n")


def test_a_body_that_does_not_arrive_is_given_up():
    async def run():
        sent = []

        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        await build_app(make_parts(body_s=0.1), on_serve=False)(scope_of("/v1/rewrite"), receive, send)
        return sent

    assert asyncio.run(run())[0]["status"] == 408
