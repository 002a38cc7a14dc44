"""Over HTTP: every stage that guides the policy, and a chain of verifiers."""

from dataclasses import replace

from services_app import client_of, make_parts, served, verify

from offsft.config import RewriteConfig
from offsft.inference.engines.scripted import ScriptedSampler
from offsft.protocols import Verdict
from offsft.records import Outcome
from offsft.rewrite.cascade import cascade_settings
from offsft.rewrite.solved import SolvedProblems
from offsft.verify.chain import VerifierChain
from services.rewriting import Rewriter
from tests.unit.verify.chat_server import ChatServer, chat_server

PENS = {
    "problem": "2 boxes of 3 pens cost 4 each?",
    "solution": "There are 2 * 3 = 6 pens. They cost 6 * 4 = 24. \\boxed{24}",
}


def client(stages, script, verifier=verify, **parts_changes):
    # The script's log-probs are noise.
    guards = {"support": None, "first_support": None}
    recipe = RewriteConfig.model_validate(
        {"max_tokens": 200, "stages": [*stages, {"kind": "expert"}], "guards": guards}
    )
    parts = make_parts(models=[served(sampler=lambda p: ScriptedSampler(script, encode=p.response, decode=p.text))])
    cascade = cascade_settings(recipe, 1500)
    rewriter = Rewriter(cascade, verifier, parts.limits, SolvedProblems(None, grows=False))
    return client_of(replace(parts, rewriter=rewriter, **parts_changes))


def test_a_recipe_with_every_stage_is_served():
    def script(prompt, number):
        return "2 * 3 = 6, 6 * 4 = 24: \\boxed{24}" if "[...]" in prompt else "2 * 3 = 6: \\boxed{6}"

    with chat_server() as url:
        ChatServer.replies[:] = [500, "Count the pens first."]
        teacher = {"kind": "teacher", "url": url, "model": "big", "waves": [1]}
        kinds = [{"kind": kind, "waves": [1]} for kind in ("self", "examples", "refine")]
        stages = [*kinds, {"kind": "prefix", "waves": [1], "shares": [1]}, teacher, {"kind": "masked", "waves": [1]}]
        with client(stages, script) as http:
            got = http.post("/v1/rewrite", json=PENS).json()
    assert (got["source"], got["details"]) == ("masked", {"hidden": 2})
    told = {attempt["stage"]: (attempt["outcome"], attempt["why"]) for attempt in got["attempts"]}
    assert told == {
        "self": ("wrong", None),
        "examples": ("skipped", "the run has solved no similar problem yet"),
        "refine": ("wrong", None),
        "prefix": ("wrong", None),
        "teacher": ("wrong", None),
        "masked": ("correct", None),
    }


def test_a_request_never_sees_the_problem_of_another():
    stages = [{"kind": "self", "waves": [1]}, {"kind": "examples", "waves": [1]}]
    with client(stages, lambda prompt, number: "\\boxed{24}" if "SECRET" in prompt else "\\boxed{0}") as http:
        assert http.post("/v1/rewrite", json=PENS | {"problem": "SECRET " + PENS["problem"]}).json()["source"] == "self"
        got = http.post("/v1/rewrite", json=PENS).json()
    assert [attempt["outcome"] for attempt in got["attempts"]] == ["wrong", "skipped"]


class SaysYes:
    async def __call__(self, response, problem):
        return Verdict(Outcome.CORRECT, why="it means the same")

    def close(self):
        pass


class Rules(SaysYes):
    async def __call__(self, response, problem):
        return await verify(response, problem)


def test_a_chain_tells_each_opinion_in_verdicts_and_attempts():
    chain = VerifierChain([("math", Rules()), ("judge", SaysYes())])
    opinions = [
        {"verifier": "math", "outcome": "no_answer", "why": "neither a \\boxed{} nor a statement of the answer"},
        {"verifier": "judge", "outcome": "correct", "why": "it means the same"},
    ]
    stages = [{"kind": "self", "waves": [1]}]
    with client(stages, lambda prompt, number: "two dozen", chain, verifier_kind="math > judge") as http:
        told = http.post(
            "/v1/verify", json={"response": "two dozen", "answer": "24", "verifier": "math > judge"}
        ).json()
        assert told == {"outcome": "correct", "extracted": None, "opinions": opinions}
        assert http.post("/v1/rewrite", json=PENS).json()["attempts"][0]["opinions"] == opinions
