"""Problems whose text names their fate (`self`, `guided` or `expert`), and the sampler that plays it."""

import asyncio
import json
import re

from offsft.errors import EngineError
from offsft.inference.engines.scripted import ScriptedSampler

FATES = ("self", "guided", "expert")


def script(prompt: str, number: int) -> str:
    """A correct answer at the second sample of the stage that the problem's text names, wrong ones elsewhere."""
    found = re.search(r"(self|guided|expert) (\d+)", prompt)
    if "1 + 0" in prompt and found is None:  # an engine's first question after a death
        return "1"
    assert found is not None, prompt
    stage = "guided" if "one way to work it out" in prompt else "self"
    right = found[1] == stage and number >= 1
    return f"It is \\boxed{{{int(found[2]) + (0 if right else 1)}}}"


def scripted_sampler(prompts):
    return ScriptedSampler(script, encode=prompts.response, decode=prompts.text, delay_s=0.01)


def always_right(prompts):
    def script(prompt, number):
        found = re.search(r"(self|guided|expert) (\d+)", prompt)
        return f"It is \\boxed{{{found[2]}}}"

    return ScriptedSampler(script, encode=prompts.response, decode=prompts.text)


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


class MortalSampler:
    """A scripted sampler whose engine dies or hangs as `fate` says for a prompt: `die`, `hang` or None."""

    def __init__(self, sampler, fate):
        self._sampler = sampler
        self._fate = fate
        self.alive = True

    async def sample(self, prompt_ids, *, n, params):
        match self._fate(self._sampler.decode(prompt_ids)) if self.alive else "die":
            case "die":
                self.alive = False
                raise RuntimeError("EngineDeadError")
            case "hang":
                await asyncio.Event().wait()
        return await self._sampler.sample(prompt_ids, n=n, params=params)

    async def score(self, prompt_ids, response_ids):
        return await self._sampler.score(prompt_ids, response_ids)


def mortal(fate):
    """A factory of mortal samplers."""
    return lambda prompts: MortalSampler(scripted_sampler(prompts), fate)


def once(path):
    """True for the first caller across all processes."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
