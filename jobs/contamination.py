"""python -m jobs.contamination [RECIPE.yaml] path=... suites=[...] [key=value ...]

Find the training problems that contain a benchmark's problem. A match is measured by the share of the benchmark's word
sequences that the training problem has too. Writes every match to contamination.json in the run's folder. With
data.exclude_suites in a recipe, the rewriting leaves such problems out.

    python -m jobs.contamination path=gsm8k_train.jsonl format=gsm8k suites=[gsm8k,math500]

Settings of `data` may be given here without their section, and suites= stands for data.exclude_suites=.
"""

from offsft.config.loading import contamination_settings

from .cli import run


def _check(recipe, console):
    from offsft.data.contamination import check_contamination

    check_contamination(recipe, console)


if __name__ == "__main__":
    run(_check, str(__doc__), short=contamination_settings)
