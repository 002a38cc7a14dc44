"""A job to submit: `python -m cluster.checks.job MODEL DELAY_S key=value ...` rewrites with a scripted sampler.

Each engine writes a file to `engines/` of the run's folder with its node and the location of its offsft.
"""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import ray

import offsft
from jobs.cli import run
from offsft.inference.engines.scripted import ScriptedSampler


def script(prompt: str, number: int) -> str:
    """A correct answer at the stage that the problem's text names, wrong ones elsewhere."""
    found = re.search(r"(self|guided|expert) (\d+)", prompt)
    if "1 + 0" in prompt and found is None:  # an engine's first question after a death
        return "1"
    assert found is not None, prompt
    stage = "guided" if "one way to work it out" in prompt else "self"
    return f"It is \\boxed{{{int(found[2]) + (found[1] != stage)}}}"


def write_problems(path: Path, count: int) -> None:
    fates = ("self", "guided", "expert")
    rows = [{"problem": f"{fates[i % 3]} {i}", "solution": f"{i} + 0 = \\boxed{{{i}}}"} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Factory:
    """Makes scripted engines; each waits for `together` of them, so that one does not do the others' work before they come."""

    def __init__(self, engines: Path, delay_s: float, together: int = 1) -> None:
        self._engines = engines
        self._delay_s = delay_s
        self._together = together

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
        while len(list(self._engines.glob("*.json"))) < self._together:
            time.sleep(0.1)
        return ScriptedSampler(script, prompts.response, prompts.text, delay_s=self._delay_s)


def rewrite(recipe: Any, model: str, delay_s: float, console: Any, together: int = 1) -> dict[str, Any]:
    from offsft.rewrite.run import run_rewrite
    from offsft.storage.run_folder import RunFolder

    folder = RunFolder(recipe.run)
    folder.open(recipe)
    factory = Factory(Path(recipe.run) / "engines", delay_s, together)
    return run_rewrite(recipe, folder, model, console, sampler_factory=factory)


def main() -> None:
    model, delay_s = sys.argv[1], float(sys.argv[2])
    del sys.argv[1:3]

    def work(recipe: Any, console: Any) -> None:
        from offsft.runtime.nodes import check_nodes
        from offsft.runtime.session import ray_session
        from offsft.storage.paths import at

        folder = Path(model).resolve()
        with ray_session(recipe.cluster):
            check_nodes(at(recipe.run), {"model.path": str(folder)}, console)
            result = rewrite(recipe, str(folder), delay_s, console)
        console.say(f"rewritten {result['problems']}")

    run(work, str(__doc__))


if __name__ == "__main__":
    main()
