"""A chain of verifiers: who is asked when, whose word counts, what is kept and counted."""

import asyncio

import pytest

from offsft.config import JudgeConfig, VerifyConfig
from offsft.config.loading import dump, load
from offsft.data.tables import opinion_rows
from offsft.errors import ConfigError
from offsft.protocols import Verdict
from offsft.records import Opinion, Outcome, Problem
from offsft.verify import check_verifier, open_verifier
from offsft.verify.chain import SecondOpinions, VerifierChain
from tests.unit.verify.chat_server import ChatServer, chat_server

RIGHT, WRONG, NONE, ERROR, TIMEOUT = (
    Outcome.CORRECT,
    Outcome.WRONG,
    Outcome.NO_ANSWER,
    Outcome.ERROR,
    Outcome.TIMEOUT,
)
PROBLEM = Problem("id", "How many?", "", "12")


class Says:
    """A verifier that says one thing and counts how often it is asked."""

    def __init__(self, outcome, extracted=None):
        self.verdict, self.asked, self.closed = Verdict(outcome, extracted, why=f"it is {outcome}"), 0, False

    async def __call__(self, response, problem):
        self.asked += 1
        return self.verdict

    def close(self):
        self.closed = True


def judged(*verifiers):
    chain = VerifierChain([(f"v{number}", verifier) for number, verifier in enumerate(verifiers)])
    return asyncio.run(chain("a response", PROBLEM))


@pytest.mark.parametrize("says_no", [WRONG, NONE])
def test_the_second_is_asked_where_the_first_says_no_and_its_yes_counts(says_no):
    verdict = judged(Says(says_no, "12 pens"), Says(RIGHT))
    assert (verdict.outcome, verdict.extracted) == (RIGHT, "12 pens")
    assert verdict.opinions == (Opinion("v0", says_no, f"it is {says_no}"), Opinion("v1", RIGHT, "it is correct"))


@pytest.mark.parametrize("outcome", [RIGHT, TIMEOUT, ERROR])
def test_a_yes_and_what_is_no_opinion_stand(outcome):
    second = Says(RIGHT)
    verdict = judged(Says(outcome), second)
    assert (verdict.outcome, second.asked, len(verdict.opinions)) == (outcome, 0, 1)


@pytest.mark.parametrize("later", [WRONG, NONE, ERROR, TIMEOUT])
def test_the_first_no_stands_where_no_other_says_yes(later):
    verdict = judged(Says(NONE), Says(later))
    assert (verdict.outcome, verdict.why, len(verdict.opinions)) == (NONE, "it is no_answer", 2)


def test_a_third_is_asked_where_the_second_fails_or_agrees():
    assert judged(Says(WRONG), Says(ERROR), Says(RIGHT)).outcome is RIGHT
    third = Says(RIGHT)
    assert judged(Says(WRONG), Says(RIGHT), third).outcome is RIGHT
    assert third.asked == 0


def test_all_of_a_chain_are_closed():
    verifiers = [Says(WRONG), Says(RIGHT)]
    VerifierChain([("a", verifiers[0]), ("b", verifiers[1])]).close()
    assert [each.closed for each in verifiers] == [True, True]


def test_rules_and_a_judge_that_is_asked_about_negatives_alone():
    with chat_server() as url:
        ChatServer.replies[:] = ["A dozen is 12.\nVERDICT: CORRECT", "No.\nVERDICT: WRONG"]
        settings = VerifyConfig(kind=("math", "judge"), judge=JudgeConfig(url=url, model="m", tries=1), timeout_s=60)

        async def verdicts():
            async with open_verifier(settings) as verifier:
                return [await verifier(text, PROBLEM) for text in ("\\boxed{12}", "a dozen, I say", "\\boxed{13}")]

        first, second, third = asyncio.run(verdicts())
    assert (first.outcome, [each.verifier for each in first.opinions]) == (RIGHT, ["math"])
    assert (second.outcome, [str(each.outcome) for each in second.opinions]) == (RIGHT, ["no_answer", "correct"])
    assert (third.outcome, third.opinions[1].why) == (WRONG, "No.")
    assert len(ChatServer.asked) == 2


def test_what_was_turned_and_what_failed_is_counted():
    counts = SecondOpinions()
    for verifiers in ([RIGHT], [WRONG, RIGHT], [NONE, RIGHT], [WRONG, WRONG], [WRONG, ERROR], [ERROR]):
        counts.add(opinion_rows(judged(*map(Says, verifiers)).opinions))
    counts.add(None)
    assert (counts.asked, counts.turned, counts.failed) == (4, 2, 1)


def test_a_chain_is_a_list_in_a_recipe_and_reads_as_itself(tmp_path):
    recipe = load(None, ["run=x", "verify.kind=[math,judge]", "verify.judge.model=m"])
    assert (recipe.verify.kinds, recipe.verify.label) == (("math", "judge"), "math > judge")
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load(tmp_path / "again.yaml", []) == recipe
    assert load(None, ["run=x", "verify.kind=[math]"]).verify == load(None, ["run=x"]).verify


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("[math,mathh]", "verify.kind='mathh' is none of math, "),
        ("[math,math]", r"verify.kind=\['math', 'math'\] is no chain; name each verifier once"),
        ("[]", r"verify.kind=\[\] is no chain"),
    ],
)
def test_a_wrong_chain_is_refused_in_one_line(kind, message):
    with pytest.raises(ConfigError, match=message) as refused:
        load(None, ["run=x", f"verify.kind={kind}"])
    assert "\n" not in str(refused.value)


def test_a_chain_with_a_judge_without_a_model_is_refused_before_anything_starts():
    with pytest.raises(ConfigError, match=r"verify\.kind=judge needs verify\.judge\.model"):
        check_verifier(load(None, ["run=x", "verify.kind=[math,judge]"]).verify)
