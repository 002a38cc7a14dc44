"""python -m jobs.gap RECIPE.yaml [gap.first.model=... gap.first.responses=... gap.second.model=...] [key=value ...]

Measure the policy gap between any two pairs of a model and responses. Gives log-ratios, KL estimates and effective
sample sizes: overall, by source and per row. Without settings it compares a run's expert solutions with its kept
rewrites, under its policy. To measure any data set, rewrite it first with `rewrite.stages=[{kind: expert}]`, which
samples nothing.
"""

from .cli import run


def _gap(recipe, console):
    from offsft.compare.gap import run_gap

    run_gap(recipe, console)


if __name__ == "__main__":
    run(_gap, str(__doc__))
