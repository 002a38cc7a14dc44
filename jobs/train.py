"""python -m jobs.train RECIPE.yaml [key=value ...]

Train the policy on the rewrites of a run.
"""

from .cli import run_pipeline

if __name__ == "__main__":
    run_pipeline(("train",), str(__doc__))
