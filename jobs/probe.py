"""python -m jobs.probe RECIPE.yaml [probe.steps=... probe.objectives=[...]] [key=value ...]

Find the objective that fits a model and its data. It trains a few steps of each of `probe.objectives` on a sample of
the run's rewrites, from the same start and with the same batches, and measures what each did to responses that were not
trained on. Prints a table, a recommendation with the figures that decided, and the setting to paste; writes probe.json
and probe.md to the run's folder. Needs finished rewrites, or with probe.responses=expert the problems alone.
Running the same command again continues what is unfinished.
"""

from .cli import run


def _probe(recipe, console):
    from offsft.probe.run import run_probe

    run_probe(recipe, console)


if __name__ == "__main__":
    run(_probe, str(__doc__))
