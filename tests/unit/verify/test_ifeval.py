"""IFEval: a response is correct if it follows all instructions of its row. The rows are ours, in the published layout."""

import asyncio
import json

import pytest

from offsft.config import Suite, VerifyConfig
from offsft.data.suites import find_suites, load_suite
from offsft.errors import ConfigError, DataError
from offsft.records import Outcome, Problem
from offsft.verify import check_verifier, ifeval, open_verifier
from offsft.verify.ifeval import IfevalJudge, read_instructions

RIGHT, WRONG, NONE, ERROR = Outcome.CORRECT, Outcome.WRONG, Outcome.NO_ANSWER, Outcome.ERROR
NAMES = ("num_words", "relation", "keywords", "language", "end_phrase")
"""Arguments of all instructions: the hub's rows hold each of them, null where it is not the instruction's."""


def published(prompt, *instructions):
    """A row as google/IFEval publishes it."""
    names, arguments = zip(*instructions, strict=True)
    return {
        "key": 1000,
        "prompt": prompt,
        "instruction_id_list": list(names),
        "kwargs": [dict.fromkeys(NAMES) | given for given in arguments],
    }


def problem(prompt, *instructions):
    return Problem("ifeval-1", prompt, "", "", read_instructions(published(prompt, *instructions)))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The checkers with a few abbreviations in place of NLTK's data, which nothing downloads."""
    pytest.importorskip("if_verifiable", reason="needs the package if-verifiable (pip install if-verifiable)")
    import nltk

    english = tmp_path / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    english.mkdir(parents=True)
    for name, text in (("abbrev_types.txt", "dr\nmr\n"), ("sent_starters.txt", "the\n")):
        (english / name).write_text(text)
    for name in ("collocations.tab", "ortho_context.tab"):
        (english / name).write_text("")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "nltk_data"))


@pytest.fixture
def judge(installed):
    return IfevalJudge(VerifyConfig(kind="ifeval"))


@pytest.mark.parametrize(
    ("instruction", "right", "wrong"),
    [
        (("punctuation:no_comma", {}), "Apples and pears.", "Apples, pears."),
        (("keywords:existence", {"keywords": ["river", "boat"]}), "A boat on the River.", "A boat on the sea."),
        (("length_constraints:number_words", {"num_words": 4, "relation": "less than"}), "Only three words.", "These are four words."),
        (("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}), "It rains. We stay.", "It rains and we stay."),
        (("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "at least"}), "It is VERY late.", "It is very late."),
        (("language:response_language", {"language": "de"}), "Heute scheint die Sonne und wir gehen spazieren.", "Today the sun shines and we go for a walk."),
        (("detectable_format:json_format", {}), '```json\n{"a": 1}\n```', "a: 1"),
        (("startend:end_checker", {"end_phrase": "That is all."}), "We met. That is all.", "That is all. We met."),
        (("combination:repeat_prompt", {"prompt_to_repeat": "Name a colour."}), "Name a colour. Blue.", "Blue."),
    ],
)  # fmt: skip
def test_a_response_is_correct_if_it_follows_the_instruction(judge, instruction, right, wrong):
    row = problem("Write something.", instruction)
    assert judge(right, row).outcome is RIGHT
    verdict = judge(wrong, row)
    assert (verdict.outcome, verdict.why) == (WRONG, f"not followed: {instruction[0]}")


def test_all_instructions_count_and_the_verdict_names_those_not_followed(judge):
    row = problem("Q", ("punctuation:no_comma", {}), ("change_case:english_lowercase", {}), ("detectable_format:title", {}))  # fmt: skip
    verdict = judge("<<a walk>>\nwe walked along the river, and it was warm", row)
    assert (verdict.outcome, verdict.why) == (WRONG, "not followed: punctuation:no_comma")
    verdict = judge("<<a walk>>\nwe walked along the river and it was warm", row)
    assert (verdict.outcome, verdict.why) == (RIGHT, "3 of 3 instructions followed")
    assert verdict.extracted.startswith("<<a walk>>")


def test_loose_forgives_an_introduction_and_strict_does_not(installed):
    row = problem("Q", ("startend:quotation", {}))
    said = 'Here it is:\n"The sun shines."'
    assert IfevalJudge(VerifyConfig(kind="ifeval"))(said, row).outcome is WRONG
    loose = VerifyConfig.model_validate({"kind": "ifeval", "ifeval": {"loose": True}})
    assert IfevalJudge(loose)(said, row).outcome is RIGHT
    assert IfevalJudge(loose)("The sun shines.", row).outcome is WRONG


def test_thoughts_are_not_judged(judge):
    row = problem("Q", ("punctuation:no_comma", {}))
    assert judge("<think>Well, one, two.</think>\n\nApples and pears.", row).outcome is RIGHT
    assert judge("<think>Apples and pears.", row).outcome is NONE
    assert judge(" \n", row).outcome is NONE


def test_a_verdict_is_the_same_every_time(judge):
    """Language detection draws at random, and so does the checker of letters for what is no letter."""
    mixed = "Das Haus the house la maison den Haag"
    row = problem("Q", ("language:response_language", {"language": "en"}))
    assert len({judge(mixed, row).outcome for _ in range(20)}) == 1
    row = problem("Q", ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "at least"}))
    assert len({judge("We walked #along.", row).outcome for _ in range(20)}) == 1


@pytest.mark.parametrize(
    ("instruction", "why"),
    [
        (("count:word_count_range", {}), "there is no instruction 'count:word_count_range'"),
        (("length_constraints:number_words", {"relation": "at least"}), "lacks num_words in kwargs"),
        (("punctuation:no_comma", {"num_words": 3}), "the arguments of punctuation:no_comma are not its own"),
        (("length_constraints:number_words", {"num_words": 3, "relation": "about"}), "relation"),
    ],
)
def test_a_row_that_cannot_be_judged_is_an_error_and_never_correct(judge, instruction, why):
    verdict = judge("Apples.", problem("Q", instruction))
    assert verdict.outcome is ERROR
    assert why in verdict.why
    assert judge("Apples.", Problem("id", "Q", "", "")).outcome is ERROR


def test_the_pool_judges_rows_in_processes_of_its_own(installed):
    async def outcomes():
        async with open_verifier(VerifyConfig(kind="ifeval", timeout_s=60)) as verifier:
            row = problem("Q", ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}))
            return [(await verifier(said, row)).outcome for said in ("We met Dr. Who.", "We met. We left.")]

    assert asyncio.run(outcomes()) == [RIGHT, WRONG]


def test_what_is_not_installed_is_named_in_one_line_before_anything_starts(monkeypatch):
    settings = VerifyConfig(kind=("math", "ifeval"))
    monkeypatch.setattr(ifeval.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package if-verifiable.*: pip install if-verifiable$"):
        check_verifier(settings)
    with pytest.raises(ConfigError, match="needs the package if-verifiable"):
        open_verifier(VerifyConfig(kind="ifeval"))


def test_data_that_nltk_lacks_is_named_and_not_downloaded(installed, monkeypatch, tmp_path):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "empty")])
    monkeypatch.setattr(nltk, "download", None)
    with pytest.raises(ConfigError, match=r"needs NLTK's data punkt_tab.*python -m nltk\.downloader punkt_tab"):
        check_verifier(VerifyConfig(kind="ifeval"))


def test_the_suite_reads_rows_as_published_and_asks_the_prompt_alone(tmp_path):
    rows = [published(" Name two fruits.\nUse no comma. ", ("punctuation:no_comma", {})) for _ in range(541)]
    rows[1]["kwargs"] = [{}]  # as the authors' own file has it: no nulls
    (tmp_path / "ifeval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (suite,) = find_suites(["ifeval"])
    problems = load_suite(suite, str(tmp_path))
    assert suite.style == "bare"
    assert {each.problem for each in problems} == {"Name two fruits.\nUse no comma."}
    assert all(each.check == {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]} for each in problems)
    (tmp_path / "ifeval.jsonl").write_text(json.dumps(rows[0]) + "\n")
    with pytest.raises(DataError, match="holds 1 rows, and the benchmark has 541"):
        load_suite(suite, str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kwargs": []}, "1 instructions have 0 objects in kwargs"),
        ({"kwargs": None}, "kwargs is not a list of objects"),
        ({"instruction_id_list": "punctuation:no_comma"}, "is not a list of names"),
    ],
)
def test_a_row_in_another_layout_is_refused_with_its_line(tmp_path, change, message):
    row = published("Q", ("punctuation:no_comma", {}))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | change) + "\n")
    (built_in,) = find_suites(["ifeval"])
    suite = Suite.model_validate(built_in.model_dump() | {"file": "rows.jsonl", "rows": 2})
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{message}"):
        load_suite(suite, str(tmp_path))
