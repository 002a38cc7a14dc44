"""An engine behind an OpenAI-compatible address: our own server, and servers that fail."""

import asyncio
import json
import time

import pytest

from offsft.config import Recipe
from offsft.errors import ConfigError, EngineError
from offsft.inference.engines import open_engine
from offsft.inference.engines import remote as remote_module
from offsft.inference.engines.base import Usage, engine_setup
from offsft.inference.engines.remote import Pace
from offsft.protocols import SamplingParams
from offsft.rewrite.cascade import cascade_settings, rewrite
from offsft.rewrite.stages import open_stages
from tests.unit.inference.remote_server import (
    GREETING,
    PROMPTS,
    Server,
    answering,
    failing,
    good,
    hanging,
    our_application,
    running,
)
from tests.unit.services.services_app import script, verify


def settings(url, **remote):
    engine = {"kind": "remote", "remote": {"url": url, "model": "base", **remote}}
    return Recipe.model_validate({"run": "runs/test", "model": {"context_tokens": 1000}, "engine": engine})


def opened(url, *, on_policy=True, **remote):
    return open_engine(engine_setup(settings(url, **remote), "model", raw_distribution=on_policy), PROMPTS)


def sample(server, *, n=1, on_policy=True, **remote):
    """Completions and usage of one call to a server."""

    async def ask(url):
        sampler = opened(url, on_policy=on_policy, **remote)
        return await sampler.sample([1, 2, 3], n=n, params=SamplingParams(50)), sampler.usage

    with running(server.app) as url:
        return asyncio.run(ask(url))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(remote_module, "_FIRST_WAIT_S", 0.01)


def test_token_ids_go_there_and_come_back_with_their_log_probs(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    server = Server(good)
    completions, usage = sample(server, n=2, key_variable="MY_KEY", prompt_price=1, completion_price=2)
    assert [c.token_ids for c in completions] == [GREETING] * 2
    assert completions[0].logprobs == [-0.5] * len(GREETING)
    assert completions[0].finished
    (body,) = server.bodies
    assert (body["model"], body["prompt"], body["n"], body["max_tokens"]) == ("base", [1, 2, 3], 2, 50)
    assert (body["stop_token_ids"], body["return_token_ids"]) == ([PROMPTS.end_of_turn], True)
    assert server.headers[0]["authorization"] == "Bearer secret"
    assert usage == Usage(1, 10, 14)
    assert usage.cost(settings("http://x", prompt_price=1, completion_price=2).engine.remote) == 38 / 1e6


def test_a_server_without_vllms_extensions_gets_and_gives_text():
    async def plain(body):
        return await good(body, token_ids=None)

    server = Server(plain)
    completions, _ = sample(server, vllm_extensions=False, prompts="text")
    assert completions[0].token_ids == GREETING
    assert completions[0].logprobs is None
    body = server.bodies[0]
    assert body["prompt"] == PROMPTS.text([1, 2, 3])
    assert body["stop"] == [PROMPTS.text([PROMPTS.end_of_turn])]
    assert not body.keys() & {"top_k", "min_p", "return_token_ids", "stop_token_ids"}
    assert asyncio.run(opened("http://127.0.0.1:9/v1", vllm_extensions=False).score([1], [2])) is None


def test_text_that_was_cut_short_has_no_end_of_turn():
    async def cut(body):
        return await good(body, token_ids=None, finish_reason="length")

    completions, _ = sample(Server(cut), vllm_extensions=False)
    assert completions[0].token_ids == GREETING[:-1]
    assert not completions[0].finished


@pytest.mark.parametrize(
    ("kind", "on_policy", "kept"),
    [("raw", True, True), ("raw", False, False), ("processed", False, True), ("none", True, False)],
)
def test_log_probs_are_kept_where_they_are_of_what_was_sampled_from(kind, on_policy, kept):
    server = Server(good)
    completions, _ = sample(server, on_policy=on_policy, logprobs=kind)
    assert (completions[0].logprobs is not None) is kept
    assert ("logprobs" in server.bodies[0]) is (kind != "none")
    assert settings("http://x", logprobs=kind).engine.gives_logprobs(on_policy=on_policy) is kept


@pytest.mark.parametrize("logprobs", [None, {"token_logprobs": []}, {"token_logprobs": [None, *[-1] * 15]}])
def test_log_probs_that_are_not_of_every_token_are_none(logprobs):
    async def partly(body):
        return await good(body, logprobs=logprobs)

    assert sample(Server(partly))[0][0].logprobs is None


@pytest.mark.parametrize(
    "trouble",
    [
        failing(429, retry_after="0.01"),
        failing(500),
        failing(503),
        failing(200, b"<html>welcome</html>", content_type="text/html"),
        failing(200, b"{", content_type="application/json"),
        answering({"choices": []}),
        answering({"choices": [{"text": 7}]}),
        answering({"error": {"message": "overloaded"}}),
        answering([]),
    ],
)
def test_a_server_in_trouble_is_asked_again(quick, trouble):
    server = Server(trouble, trouble, good)
    completions, _ = sample(server)
    assert completions[0].token_ids == GREETING
    assert len(server.bodies) == 3


def test_a_server_that_hangs_is_asked_again(quick):
    server = Server(hanging, good)
    completions, _ = sample(server, timeout_s=0.3)
    assert completions[0].token_ids == GREETING


@pytest.mark.parametrize("sent", [b"", b"\x00\xff garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"])
def test_a_server_that_breaks_off_or_speaks_no_http_ends_in_one_line(quick, sent):
    async def serve_and_ask():
        async def answer(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            await opened(url, tries=2).sample([1], n=1, params=SamplingParams(5))

    with pytest.raises(EngineError, match="gave no answer in 2 tries"):
        asyncio.run(serve_and_ask())


def test_a_wait_that_the_server_asks_for_is_kept(quick):
    server = Server(failing(429, retry_after="0.5"), good)
    sample(server)
    assert server.times_s[1] - server.times_s[0] >= 0.5


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (failing(502), "status 502"),
        (failing(200, b"nonsense", content_type="application/json"), "not a completion"),
        (answering({"choices": []}), "0 choices instead of 1"),
    ],
)
def test_a_server_that_stays_in_trouble_ends_in_one_line(quick, trouble, reason):
    server = Server(trouble)
    with pytest.raises(EngineError, match=rf"gave no answer in 3 tries .*({reason}).*; the same command continues"):
        sample(server, tries=3)
    assert len(server.bodies) == 3


def test_an_address_where_nobody_answers_is_named(quick):
    with pytest.raises(EngineError, match=r"engine\.remote: http://127\.0\.0\.1:9/v1 gave no answer in 2 tries"):
        asyncio.run(opened("http://127.0.0.1:9/v1", tries=2).sample([1], n=1, params=SamplingParams(5)))


@pytest.mark.parametrize(
    ("status", "advice"),
    [(400, "too long"), (401, "OPENAI_API_KEY"), (404, r"engine\.remote\.model"), (422, "too long")],
)
def test_what_is_refused_for_good_is_not_asked_again(quick, status, advice):
    body = json.dumps({"error": {"message": "the prompt is too long", "type": "x"}}).encode()
    server = Server(failing(status, body, content_type="application/json"))
    with pytest.raises(
        EngineError, match=rf"refuses a request \({status}\): the prompt is too long.*|{advice}"
    ) as found:
        sample(server)
    assert len(server.bodies) == 1
    if status in (401, 404):
        assert found.match(advice)


def test_no_more_requests_are_under_way_than_the_setting_says():
    async def slow(body):
        await asyncio.sleep(0.05)
        return await good(body)

    async def ask(url):
        sampler = opened(url, concurrency=3)
        await asyncio.gather(*(sampler.sample([1], n=1, params=SamplingParams(5)) for _ in range(12)))

    server = Server(slow)
    with running(server.app) as url:
        asyncio.run(ask(url))
    assert (len(server.bodies), server.most_at_once) == (12, 3)


def test_requests_begin_no_faster_than_the_rate():
    async def begin():
        pace, began_s = Pace(600), []
        for _ in range(4):
            await pace.wait()
            began_s.append(time.monotonic())
        return began_s

    began_s = asyncio.run(begin())
    assert began_s[-1] - began_s[0] >= 0.3 - 1e-3


def test_rows_are_scored_by_the_prompts_log_probs():
    async def scored(body):
        ids = body["prompt"]
        positions = [None, *({str(token): {"logprob": -0.1 * place}} for place, token in enumerate(ids[1:], start=1))]
        assert (body["prompt_logprobs"], body["max_tokens"]) == (0, 1)
        return await good(body, prompt_logprobs=positions)

    async def ask(url):
        return await opened(url).score([5, 6], [7, 8, 9])

    with running(Server(scored).app) as url:
        assert asyncio.run(ask(url)) == pytest.approx([-0.2, -0.3, -0.4])
    with running(Server(good).app) as url, pytest.raises(EngineError, match=r"engine\.remote\.vllm_extensions=false"):
        asyncio.run(ask(url))


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"kind": "remote"}, r"needs engine\.remote\.model"),
        ({"kind": "remote", "remote": {"model": "m"}, "gpus": 1}, r"no use for engine\.gpus"),
        ({"kind": "remote", "remote": {"model": "m"}, "args": {"a": 1}}, r"no use for engine\.args"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(engine, message):
    with pytest.raises((ConfigError, ValueError), match=message):
        Recipe.model_validate({"run": "runs/test", "engine": engine})


@pytest.mark.parametrize("source", ["self", "guided", "expert"])
def test_the_cascade_over_our_own_server_keeps_what_the_script_says(source):
    from offsft.records import Problem

    problem = Problem("id", f"{source} 7", "7 it is. \\boxed{7}", "7")
    recipe = settings("http://x")

    async def ask(url):
        cascade = cascade_settings(recipe.rewrite.model_copy(update={"max_tokens": 50}), 1000)
        sampler = opened(url)
        stages = open_stages(recipe.rewrite.stages, PROMPTS)
        of = {"prompts": PROMPTS, "sampler": sampler, "verifier": verify}
        done = await rewrite(problem, stages=stages, settings=cascade, **of)
        return done, sampler.usage

    with running(our_application()) as url:
        done, usage = asyncio.run(ask(url))
    assert done.source == source
    if source != "expert":
        assert done.response == script(
            PROMPTS.text(done.prompt_ids) + ("one way to work it out" if source == "guided" else ""), 0
        )
        assert done.behavior_logprobs is not None
    assert done.expert_logprobs == [-1.0] * len(done.expert_ids)
    assert usage.requests > 1
    assert usage.completion_tokens >= done.generated_tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"objective": {"kind": "is"}}}, r"train: objective kind=is needs the samples' log-probs"),
        ({"rewrite": {"pick": "most_likely"}}, r"rewrite\.pick=most_likely needs the samples' log-probs"),
        (
            {"compare": {"arms": [{"name": "IS", "responses": "kept", "objective": {"kind": "is"}}]}},
            r"compare\.arms \(IS\): objective kind=is needs",
        ),
    ],
)
def test_what_needs_log_probs_is_refused_with_a_server_that_gives_none(changes, message):
    silent = {"kind": "remote", "remote": {"model": "base", "vllm_extensions": False}}
    with pytest.raises((ConfigError, ValueError), match=message):
        Recipe.model_validate({"run": "runs/test", "engine": silent, **changes})
    speaking = {"kind": "remote", "remote": {"model": "base"}}
    assert Recipe.model_validate({"run": "runs/test", "engine": speaking, **changes})
    warm = {**changes, "rewrite": {**changes.get("rewrite", {}), "temperature": 0.5}}
    with pytest.raises((ConfigError, ValueError), match=message):
        Recipe.model_validate({"run": "runs/test", "engine": speaking, **warm})


def test_one_remote_model_is_not_evaluated_as_two(tmp_path):
    from offsft.evaluate.run import run_evaluate
    from offsft.pipeline.run import run_stages
    from offsft.runtime.console import Console
    from offsft.storage.run_folder import RunFolder

    recipe = settings("http://x").model_copy(update={"run": str(tmp_path / "run")})
    with pytest.raises(ConfigError, match=r"2 are to be evaluated \(base, trained\); set engine\.kind=vllm"):
        run_evaluate(recipe, RunFolder(recipe.run), {"base": "a", "trained": "b"}, Console())
    with pytest.raises(ConfigError, match=r"then jobs\.evaluate with engine\.kind=vllm"):
        run_stages(recipe, ("rewrite", "train", "evaluate", "report"), Console())


def test_importance_sampling_refuses_rows_of_unknown_behaviour(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from offsft.config import TrainConfig
    from offsft.errors import TrainingError
    from offsft.train.behavior import check_behavior

    schema = pa.schema([("source", pa.string()), ("behavior_logprobs", pa.list_(pa.float32()))])
    rows = [("self", [-1.0]), ("self", None), ("guided", None), ("expert", None)]
    items = [{"source": source, "behavior_logprobs": logprobs} for source, logprobs in rows]
    pq.write_table(pa.Table.from_pylist(items, schema=schema), tmp_path / "rows.parquet")
    weighed = TrainConfig.model_validate({"objective": {"kind": "is"}})
    with pytest.raises(TrainingError, match=r"2 of 4 rows were sampled by an engine that gave no log-probs"):
        check_behavior(tmp_path, weighed)
    check_behavior(tmp_path, weighed.model_copy(update={"responses": "expert"}))
    check_behavior(tmp_path, TrainConfig())


def test_what_was_paid_for_is_added_up_over_all_calls_on_a_folder(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from offsft.inference import batch_job

    job = SimpleNamespace(
        output=tmp_path / "rewrites", engine=settings("http://x", prompt_price=2, completion_price=10).engine
    )
    job._usage_folder = lambda: batch_job.EngineJob._usage_folder(job)
    coordinator = SimpleNamespace(state=SimpleNamespace(remote=lambda: SimpleNamespace(usage=Usage(3, 1000, 100))))
    monkeypatch.setattr(batch_job.ray, "get", lambda state: state)
    assert batch_job.EngineJob._usage(job) is None
    for _ in range(2):
        batch_job.EngineJob._keep_usage(job, coordinator)
    found = batch_job.EngineJob._usage(job)
    assert found == {"requests": 6, "prompt_tokens": 2000, "completion_tokens": 200, "cost": pytest.approx(0.006)}
