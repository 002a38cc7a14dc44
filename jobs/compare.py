"""python -m jobs.compare RECIPE.yaml [key=value ...]

Compare objectives with and without rewriting: one set of rewrites, every arm of `compare.arms` trained with every seed of
`compare.seeds`, all evaluated on the same problems. Leaves table.json, table.md and compare.png in the run's folder.
Running the same command again continues what is unfinished.
"""

from jobs.command import run


def _compare(recipe, console):
    from offsft.compare.run import run_compare

    run_compare(recipe, console)


if __name__ == "__main__":
    run(_compare, str(__doc__))
