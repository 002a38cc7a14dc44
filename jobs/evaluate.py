"""python -m jobs.evaluate RECIPE.yaml [key=value ...]

Evaluate the policy before and, where there is one, after training on held-out problems.
"""

from jobs.command import run_pipeline

if __name__ == "__main__":
    run_pipeline(("evaluate",), str(__doc__))
