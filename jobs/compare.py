"""python -m jobs.compare RECIPE.yaml [key=value ...]

Compare objectives with and without rewriting. All use one set of rewrites; every arm of `compare.arms` is trained with
every seed of `compare.seeds` and evaluated on the same problems. Writes table.json, table.md and compare.png to the
run's folder.
Running the same command again continues what is unfinished.
"""

from .cli import run


def _compare(recipe, console):
    from offsft.compare.run import run_compare

    run_compare(recipe, console)


if __name__ == "__main__":
    run(_compare, str(__doc__))
