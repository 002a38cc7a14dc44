"""Judges for the tests of the verifier's processes, which import this module, so it should import little."""

import os
import time

from offsft.protocols import Verdict
from offsft.records import Outcome, Problem


def misbehave(response: str, problem: Problem) -> Verdict:
    """Judge correct, except for the responses named here."""
    if response == "warm":
        return Verdict(Outcome.WRONG)
    if response == "hungry":
        return Verdict(Outcome.CORRECT, str(len(bytearray(2**32))))
    if response == "dies":
        os._exit(3)
    if response == "hangs":
        time.sleep(600)
    if response == "raises":
        raise RuntimeError("a bug in the comparison")
    if response == "pid":
        return Verdict(Outcome.WRONG, str(os.getpid()))
    return Verdict(Outcome.CORRECT)


def die(response: str, problem: Problem) -> Verdict:
    """End the judging process at once."""
    os._exit(3)
