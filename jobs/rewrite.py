"""python -m jobs.rewrite RECIPE.yaml [key=value ...]

Rewrite the problems. Each keeps the response of the first stage of the cascade that gives one: by default a correct
solution of the policy itself, else a guided one, else the expert's.
"""

from .cli import run_pipeline

if __name__ == "__main__":
    run_pipeline(("rewrite",), str(__doc__))
