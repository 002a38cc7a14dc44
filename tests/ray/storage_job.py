"""The whole pipeline with scripted engines and a real training, in a process of its own: `storage_job.py STAGES key=value ...`.

`gap` in place of the stages is `jobs.gap`.

Where an object `wait` is in the run's folder, the training's worker waits for ever before it saves step 2.
"""

import sys
import time
from functools import partial
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).parent))
import scripted_problems

import offsft.evaluate.run
import offsft.rewrite.pipeline
import offsft.train.run
from jobs.command import run, run_pipeline
from offsft.compare.gap import run_gap

ray.cloudpickle.register_pickle_by_value(scripted_problems)
STAGES = sys.argv.pop(1).split(",")


def loop_that_may_wait(config):
    from offsft.storage import at
    from offsft.train import worker

    save = worker._save

    def save_or_wait(engine, step, run):
        if step == 2 and (at(config["spec"].logs).parent / "wait").exists():
            time.sleep(600)
        save(engine, step, run)

    worker._save = save_or_wait
    return worker.train_loop(config)


def slow_sampler(prompts):
    sampler = scripted_problems.scripted_sampler(prompts)
    sampler.delay_s = 0.2
    return sampler


if __name__ == "__main__":
    rewrite, evaluate = offsft.rewrite.pipeline.run_rewrite, offsft.evaluate.run.run_evaluate
    offsft.rewrite.pipeline.run_rewrite = partial(rewrite, sampler_factory=slow_sampler)
    offsft.evaluate.run.run_evaluate = partial(evaluate, sampler_factory=scripted_problems.scripted_sampler)
    offsft.train.run.train_loop = loop_that_may_wait
    if STAGES == ["gap"]:
        run(partial(run_gap, sampler_factory=scripted_problems.scripted_sampler), str(__doc__))
    else:
        run_pipeline(STAGES, str(__doc__))
