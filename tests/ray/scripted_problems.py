"""Problems whose fate is in their text, and the sampler that plays it: `self`, `guided` or `expert`."""

import json
import re

from offsft.errors import EngineError
from offsft.sampling.scripted import ScriptedSampler

FATES = ("self", "guided", "expert")


def script(prompt: str, number: int) -> str:
    """A correct answer at the second sample of the stage that the problem's text names, wrong ones elsewhere."""
    found = re.search(r"(self|guided|expert) (\d+)", prompt)
    assert found is not None, prompt
    stage = "guided" if "one way to work it out" in prompt else "self"
    right = found[1] == stage and number >= 1
    return f"It is \\boxed{{{int(found[2]) + (0 if right else 1)}}}"


def scripted_sampler(prompts):
    tokenizer = prompts._tokenizer
    return ScriptedSampler(script, encode=prompts.response, decode=tokenizer.decode, delay_s=0.01)


def must_not_start(prompts):
    raise AssertionError("an engine was started although all was done")


def broken_sampler(prompts):
    raise EngineError("no such device")


def write_problems(path, count, start=0):
    rows = [
        {"problem": f"{FATES[i % 3]} {i}", "solution": f"{i} + 0 = {i}. \\boxed{{{i}}}"}
        for i in range(start, start + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
