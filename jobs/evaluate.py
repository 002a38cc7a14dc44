"""python -m jobs.evaluate [RECIPE.yaml] [model=... suites=[...]] [key=value ...]

Evaluate models on benchmarks: mean@k, pass@k, maj@k and greedy, each model against the first, every answer kept.

    python -m jobs.evaluate model=embedded suites=[gsm8k,math500] limit=20 samples=4 max_tokens=128
    python -m jobs.evaluate jobs/recipes/paper-eval.yaml model=[before=Qwen/Qwen2.5-Math-7B,after=runs/mine/model]

Settings of `evaluate` may be written without their section here, and model= for evaluate.models=. Without run=, answers are
kept in runs/evaluate. With a run's recipe and neither model= nor evaluate.models: the run's policy before and after training.
"""

from jobs.command import run_pipeline
from offsft.recipes import evaluation_settings

if __name__ == "__main__":
    run_pipeline(("evaluate",), str(__doc__), short=evaluation_settings)
