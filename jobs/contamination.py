"""python -m jobs.contamination [RECIPE.yaml] path=... suites=[...] [key=value ...]

Which training problems hold a benchmark's problem: by the share of its sequences of words that they share. Leaves every match
in contamination.json of the run's folder. With data.exclude_suites in a recipe, the rewriting leaves such problems out.

    python -m jobs.contamination path=gsm8k_train.jsonl format=gsm8k suites=[gsm8k,math500]

Settings of `data` may be written without their section here, and suites= for data.exclude_suites=.
"""

from jobs.command import run
from offsft.recipes import contamination_settings


def _check(recipe, console):
    from offsft.evaluate.contamination import check_contamination

    check_contamination(recipe, console)


if __name__ == "__main__":
    run(_check, str(__doc__), short=contamination_settings)
