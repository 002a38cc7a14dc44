"""The whole pipeline with scripted engines and real training, in a process: `storage_job.py STAGES key=value ...`.

`gap` among the stages runs `jobs.gap` after them, on the same Ray.

If an object `wait` exists in the run's folder, the training's worker waits forever before it saves step 2.
"""

import sys
import time
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).parent))
import scripted_problems

import offsft.evaluate.run
import offsft.rewrite.run
import offsft.train.run
from jobs.cli import run
from offsft.compare.gap import run_gap
from offsft.pipeline.run import run_stages
from offsft.runtime.session import ray_session

ray.cloudpickle.register_pickle_by_value(scripted_problems)
STAGES = sys.argv.pop(1).split(",")


def loop_that_may_wait(config):
    from offsft.storage.paths import at
    from offsft.train import worker

    save = worker._save

    def save_or_wait(engine, step, *rest):
        if step == 2 and (at(config["spec"].logs).parent / "wait").exists():
            time.sleep(600)
        save(engine, step, *rest)

    worker._save = save_or_wait
    return worker.train_loop(config)


def slow_sampler(prompts):
    sampler = scripted_problems.scripted_sampler(prompts)
    sampler.delay_s = 0.2
    return sampler


def sampling_by(factory, stage):
    """The stage with this sampler instead of the given one: the pipeline gives none, which means a real engine."""
    return lambda *arguments, **named: stage(*arguments, **named | {"sampler_factory": factory})


def work(recipe, console):
    with ray_session(recipe.cluster):
        run_stages(recipe, [stage for stage in STAGES if stage != "gap"], console)
        if "gap" in STAGES:
            run_gap(recipe, console, sampler_factory=scripted_problems.scripted_sampler)


if __name__ == "__main__":
    offsft.rewrite.run.run_rewrite = sampling_by(slow_sampler, offsft.rewrite.run.run_rewrite)
    offsft.evaluate.run.run_evaluate = sampling_by(scripted_problems.scripted_sampler, offsft.evaluate.run.run_evaluate)
    offsft.train.run.train_loop = loop_that_may_wait
    run(work, str(__doc__))
