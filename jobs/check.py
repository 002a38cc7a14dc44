"""python -m jobs.check RECIPE.yaml [json=true] [key=value ...]

Find in seconds what would stop a recipe after hours. It looks at the recipe's files, the chat template, lengths and
vocabulary, and tries in miniature whether the model can be trained exactly and exported; weights need not be there.
Starts nothing. Every job does the same at its start. Prints a line for each finding, with what to do; json=true prints
them as JSON. Exits with 1 if one of them stops the recipe.
"""

import contextlib
import sys
from pathlib import Path

from offsft.errors import ConfigError, ModelError

from .cli import find_recipe, run_on_stdout

_STAGES = ("rewrite", "train", "evaluate")


def _check(path: Path | None, arguments: list[str]) -> None:
    import json

    from offsft.config.loading import load

    as_json = [argument.removeprefix("json=") for argument in arguments if argument.startswith("json=")]
    if set(as_json) - {"true", "false"}:
        raise ConfigError(f"json={as_json[-1]}: give true or false")
    overrides = [argument for argument in arguments if not argument.startswith("json=")]
    recipe = load(find_recipe(str(path)) if path else None, [*([] if path else ["run=runs/check"]), *overrides])

    from offsft.pipeline.dry_run import check_recipe

    # What libraries print, also at their import, is not part of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        findings = check_recipe(recipe, _STAGES)
    stopping = sum(finding.stops for finding in findings)
    if as_json and as_json[-1] == "true":
        listed = [{"about": each.about, "stops": each.stops, "text": each.text} for each in findings]
        print(json.dumps({"ok": not stopping, "findings": listed}, indent=2, ensure_ascii=False))
    else:
        for each in findings:
            print(f"{'stops' if each.stops else 'note':6}{each.about}: {each.text}")
    if stopping:
        raise ModelError(f"{stopping} of {len(findings)} findings would stop this recipe; mend them, and check again")
    if not as_json:
        print(f"nothing stops {recipe.model.path} with this recipe")


if __name__ == "__main__":
    run_on_stdout(_check, str(__doc__))
