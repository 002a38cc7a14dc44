"""A training driver in a separate process, to be killed: `python training_job.py key=value ...`.

If `wait` exists in the run's folder, the workers wait forever before they save step 2.
"""

import time
from pathlib import Path

import offsft.train.run
from jobs.cli import run_pipeline


def loop_that_may_wait(config):
    from offsft.train import worker

    save = worker._save

    def save_or_wait(engine, step, *rest):
        if step == 2 and (Path(config["spec"].logs).parent / "wait").exists():
            time.sleep(600)
        save(engine, step, *rest)

    worker._save = save_or_wait
    return worker.train_loop(config)


if __name__ == "__main__":
    offsft.train.run.train_loop = loop_that_may_wait
    run_pipeline(("train",), str(__doc__))
