"""python -m jobs.gap RECIPE.yaml [gap.first.model=... gap.first.responses=... gap.second.model=...] [key=value ...]

The policy gap of any two pairs of a model and responses: log-ratios, KL estimates, effective sample sizes, in sum, by
source and for each row. Without settings: a run's expert solutions against what rewriting kept, under its policy. To
measure any data set, rewrite it first with rewrite.self_waves=[] rewrite.guided_waves=[], which samples nothing.
"""

from jobs.command import run


def _gap(recipe, console):
    from offsft.compare.gap import run_gap

    run_gap(recipe, console)


if __name__ == "__main__":
    run(_gap, str(__doc__))
