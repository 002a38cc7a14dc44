"""What the screen says of a stage: what it waits for, what its engines do, how far it is."""

from offsft.inference.coordinator import State
from offsft.inference.engines.base import Usage
from offsft.inference.progress import StageLine
from offsft.runtime.placement import Need

NEED = Need(2, {"GPU": 1.0}, {})


def state(**changes):
    start = {
        "kinds": {},
        "tokens": 0,
        "placed": 0,
        "engines": 0,
        "doing": "",
        "waits": [],
        "deaths": 0,
        "mute_deaths": 0,
    }
    return State(**(start | {"error": None, "usage": Usage()} | changes))


def text(now, waits=None):
    return StageLine("rewrite: mine", 10, 2, NEED).text(now, waits)


def test_a_job_without_a_place_says_what_it_waits_for():
    assert text(state(), "needs 2 GPUs, the cluster has 1") == (
        "rewrite: mine: waiting: needs 2 GPUs, the cluster has 1, 0 s"
    )


def test_a_starting_engine_says_what_it_does():
    assert text(state(placed=1, doing="fetching the model")) == "rewrite: mine: fetching the model, 0 s"
    compiling = "starting the engine and compiling, once on this machine"
    assert text(state(placed=1, doing=compiling)) == f"rewrite: mine: {compiling}, 0 s"


def test_an_engine_that_compiles_at_its_first_samples_says_so_until_it_answers():
    compiling = {"placed": 2, "engines": 1, "doing": "compiling, once on this machine"}
    assert text(state(**compiling)) == "rewrite: mine: 2 of 10, 0 tokens/s, compiling, once on this machine, 0 s"
    assert "compiling" not in text(state(**compiling, kinds={"self": 1}, tokens=5))


def test_what_a_ready_engine_waits_for_is_told():
    trouble = "the server gave status 503, try 3 of 8"
    assert text(state(placed=2, engines=2, waits=[trouble])) == f"rewrite: mine: 2 of 10, 0 tokens/s, {trouble}"


def test_deaths_and_lost_places_are_told():
    line = text(state(placed=2, engines=3, deaths=1, kinds={"self": 8}), "needs 1 GPU more, and the cluster has 0 free")
    assert "10 of 10, self 8" in line
    assert "1 engine died, an engine lost its place: needs 1 GPU more, and the cluster has 0 free" in line
