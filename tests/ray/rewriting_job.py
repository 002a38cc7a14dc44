"""A separate driver for tests that send it signals: `python rewriting_job.py MODEL DELAY_S key=value ...`."""

import sys
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).parent))
import scripted_problems

from jobs.cli import run

ray.cloudpickle.register_pickle_by_value(scripted_problems)
MODEL, DELAY_S = sys.argv[1], float(sys.argv[2])
del sys.argv[1:3]


def slow_sampler(prompts):
    sampler = scripted_problems.scripted_sampler(prompts)
    sampler.delay_s = DELAY_S
    return sampler


def work(recipe, console):
    from offsft.rewrite.run import run_rewrite
    from offsft.runtime.session import ray_session
    from offsft.storage.run_folder import RunFolder

    folder = RunFolder(recipe.run)
    folder.open(recipe)
    with ray_session(recipe.cluster):
        folder.finish("rewrite", run_rewrite(recipe, folder, MODEL, console, sampler_factory=slow_sampler))
    console.say("rewritten")


if __name__ == "__main__":
    run(work, str(__doc__))
