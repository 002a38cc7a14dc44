"""python -m jobs.rewrite RECIPE.yaml [key=value ...]

Rewrite the problems: the policy's own solution where one is correct, else a guided one, else the expert's.
"""

from jobs.command import run

if __name__ == "__main__":
    run(("rewrite",), str(__doc__))
