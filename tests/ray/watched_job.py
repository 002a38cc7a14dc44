"""A job for the metrics tests: `python watched_job.py FOLDER DASHBOARD_PORT`. Rewrites with a scripted sampler, answers
requests by the gateway's application, records a training worker's metrics, prints the folder of Ray's session, and stays until its input is closed."""

import sys
import time
from pathlib import Path

import ray

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "services"))
sys.path.insert(0, str(Path(__file__).parent))
import scripted_problems
import services_app

from benchmarks.byte_tokenizer import byte_tokenizer
from offsft.config.loading import load
from offsft.rewrite.run import run_rewrite
from offsft.runtime import metrics
from offsft.runtime.console import Console
from offsft.runtime.session import start_ray
from offsft.storage.run_folder import RunFolder
from offsft.train.step_log import ALL, NLL
from offsft.train.trackers import measure_gap, measure_held_out, measure_skip, measure_step

ray.cloudpickle.register_pickle_by_value(scripted_problems)
ROOT = Path(__file__).parents[2]
RUN = "watched"
ROWS = 60


def slow_sampler(prompts):
    sampler = scripted_problems.scripted_sampler(prompts)
    sampler.delay_s = 0.1
    return sampler


def train(steps: int) -> None:
    """Record the metrics of rank 0, with the functions that it uses."""
    for step in range(1, steps + 1):
        line = {"step": step, "steps": steps, "tokens": 100, "loss/objective": 1 / step, "loss/nll": 2 / step}
        measure_step(RUN, line | {"optim/grad_norm": 1.0, "optim/learning_rate": 1e-4, "weight/ess_share": 0.5})
        time.sleep(0.5)
    measure_held_out(RUN, {f"{NLL}{ALL}": 1.5})
    measure_skip(RUN, {})
    metrics.CHECKPOINT_SECONDS.observe(2.0, run=RUN)
    both = {responses: {"all": {"mean_log_ratio": -1.0, "ess_share": 0.5}} for responses in ("expert", "kept")}
    measure_gap(RUN, {"before": both, "after": both})
    metrics.EVALUATED_SAMPLES.add(run=RUN, model="base", outcome="correct")
    metrics.EVALUATION_ACCURACY.set(0.5, run=RUN, model="base")
    time.sleep(3600)


def serve() -> None:
    """Let the gateway's application answer a rewrite, a problem that cannot be used, and a mistake."""
    with services_app.client_of(services_app.make_parts()) as client:
        for body in (services_app.problem(), services_app.problem(solution="none"), {}):
            client.post("/v1/rewrite", json=body)
    metrics.LOG_LINES_DROPPED.add()


def main() -> None:
    folder = Path(sys.argv[1])
    byte_tokenizer().save_pretrained(folder / "tokenizer")
    scripted_problems.write_problems(folder / "p.jsonl", ROWS)
    start_ray(
        num_cpus=4,
        include_dashboard=True,
        dashboard_port=int(sys.argv[2]),
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )
    node = ray._private.worker._global_node
    assert node is not None
    print(node.get_session_dir_path(), flush=True)
    ray.remote(train).options(num_cpus=0).remote(20)
    serve()
    settings = [f"run={folder / RUN}", f"data.path={folder / 'p.jsonl'}", "rewrite.commit_problems=2"]
    settings += [
        "rewrite.max_tokens=40",
        "verify.timeout_s=60",
        "rewrite.guards={support: null, first_support: null, bare: false}",
        "engine.concurrent_commits=1",
    ]
    recipe = load(None, settings)
    run = RunFolder(recipe.run)
    run.open(recipe)
    run_rewrite(recipe, run, str(folder / "tokenizer"), Console(), sampler_factory=slow_sampler)
    sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main()
