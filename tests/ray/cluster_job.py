"""A job to submit: `python -m tests.ray.cluster_job MODEL DELAY_S key=value ...` rewrites with a scripted sampler.

Each engine leaves a file in `engines/` of the run's folder that says where it ran and from where it took offsft.
"""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import ray

import offsft
from jobs.command import run
from offsft.sampling.scripted import ScriptedSampler


def script(prompt: str, number: int) -> str:
    """A correct answer at the stage that the problem's text names, wrong ones elsewhere."""
    found = re.search(r"(self|guided|expert) (\d+)", prompt)
    assert found is not None, prompt
    stage = "guided" if "one way to work it out" in prompt else "self"
    return f"It is \\boxed{{{int(found[2]) + (found[1] != stage)}}}"


def write_problems(path: Path, count: int) -> None:
    fates = ("self", "guided", "expert")
    rows = [{"problem": f"{fates[i % 3]} {i}", "solution": f"{i} + 0 = \\boxed{{{i}}}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Factory:
    def __init__(self, engines: Path, delay_s: float) -> None:
        self._engines = engines
        self._delay_s = delay_s

    def __call__(self, prompts: Any) -> ScriptedSampler:
        group = ray.util.get_current_placement_group()
        context = ray.get_runtime_context()
        told = {
            "node": context.get_node_id(),
            "labels": context.get_node_labels(),
            "bundles": group.bundle_specs if group else None,
            "package": str(Path(offsft.__file__).parent),
        }
        self._engines.mkdir(exist_ok=True)
        (self._engines / f"{os.getpid()}.json").write_text(json.dumps(told))
        return ScriptedSampler(script, prompts.response, prompts._tokenizer.decode, delay_s=self._delay_s)


def rewrite(recipe: Any, model: str, delay_s: float, console: Any) -> dict[str, Any]:
    from offsft.rewrite.pipeline import run_rewrite
    from offsft.run_folder import RunFolder

    folder = RunFolder(recipe.run)
    folder.open(recipe)
    factory = Factory(folder.path / "engines", delay_s)
    return run_rewrite(recipe, folder, model, console, sampler_factory=factory)


def main() -> None:
    model, delay_s = sys.argv[1], float(sys.argv[2])
    del sys.argv[1:3]

    def work(recipe: Any, console: Any) -> None:
        from offsft.ray_session import ray_session

        with ray_session(recipe.cluster):
            result = rewrite(recipe, model, delay_s, console)
        console.say(f"rewritten {result['problems']}")

    run(work, str(__doc__))


if __name__ == "__main__":
    main()
