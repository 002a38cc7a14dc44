"""python -m jobs.evaluate [RECIPE.yaml] [model=... suites=[...]] [key=value ...]

Evaluate models on benchmarks. It computes mean@k, pass@k, maj@k and greedy accuracy, compares each model with the first, and
keeps every answer.

    python -m jobs.evaluate model=embedded suites=[gsm8k,math500] limit=20 samples=4 max_tokens=128
    python -m jobs.evaluate jobs/recipes/paper-eval.yaml model=[before=Qwen/Qwen2.5-Math-7B,after=runs/mine/model]

Settings of `evaluate` may be given here without their section, and model= stands for evaluate.models=. Without run=,
answers are kept in runs/evaluate. With a run's recipe and neither model= nor evaluate.models, the run's policy is
evaluated before and after training.
"""

from offsft.config.loading import evaluation_settings

from .cli import run_pipeline

if __name__ == "__main__":
    run_pipeline(("evaluate",), str(__doc__), short=evaluation_settings)
