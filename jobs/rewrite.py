"""python -m jobs.rewrite RECIPE.yaml [key=value ...]

Rewrite the problems: the policy's own solution where one is correct, else a guided one, else the expert's.
"""

from jobs.command import run_pipeline

if __name__ == "__main__":
    run_pipeline(("rewrite",), str(__doc__))
