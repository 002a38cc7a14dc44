"""What the measures and guards cost of a rewriting run: `python -m benchmarks.measure_costs RUN [--json]`.

Measures the responses of a run's folder again, each as often as the run did: every kept one, and every correct or
refused sample of a stage that showed something. `share` is the processor time of that by the time that the run's
rewriting took. The model's tokenizer finds the tokens of answers, as in the run.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from offsft.config.loading import load
from offsft.measures.row import Sample, against_own, measure_text, with_scores
from offsft.prompts import Prompts, load_prompts
from offsft.records import Outcome, Problem
from offsft.storage.paths import at, open_parquet, parquet_files

_MEASURED = {Outcome.CORRECT, Outcome.UNSUPPORTED, Outcome.FALSE_STEP, Outcome.COPIED, Outcome.LEAKED, Outcome.BARE}


def measured_again(row: dict[str, Any], prompts: Prompts) -> int:
    """Measure a row's responses; returns how many there were."""
    problem = Problem.from_row(row)
    expert = row["expert_ids"]
    own = [(a["text"] or "", a["tokens"]) for a in row["attempts"] if a["stage"] == "self"]
    hinted = [a for a in row["attempts"] if a["stage"] != "self" and a["outcome"] in _MEASURED]
    for attempt in hinted:
        text = attempt["text"] or row["response"]
        # Ids of samples that were not kept are not in the row: as many of the kept ones take the same time.
        ids = (row["response_ids"] * (1 + attempt["tokens"] // max(1, len(row["response_ids"]))))[: attempt["tokens"]]
        measure_text(Sample(text, ids, prompts.text(prompts.guided(problem))), problem, expert)
    sample = Sample(row["response"], row["response_ids"])
    found, _ = measure_text(sample, problem, expert)
    found = with_scores(found, sample, problem, prompts.text, row["policy_logprobs"], row["behavior_logprobs"])
    against_own(found, row["response_ids"], own)
    return 1 + len(hinted)


def costs(run: Path) -> dict[str, Any]:
    """`rows`, `responses` measured, `cpu_ms` of each, the run's `seconds`, and `share` of them."""
    from offsft.demo.model import embedded_model

    recipe = load(run / "config.resolved.yaml", [])
    model = str(embedded_model()) if recipe.model.path == "embedded" else recipe.model.path
    prompts = load_prompts(model, recipe.model.revision, recipe.prompt, recipe.model.thinking)
    rows = [
        row
        for path in parquet_files(at(str(run / "rewrites")))
        for row in open_parquet(path).read().to_pylist()
        if row["response_ids"]
    ]
    if rows:
        measured_again(rows[0], prompts)  # so that compiling patterns is not measured
    start = time.process_time()
    responses = sum(measured_again(row, prompts) for row in rows)
    spent = time.process_time() - start
    seconds = json.loads((run / "rewrite.json").read_text(encoding="utf-8"))["seconds"]
    return {
        "rows": len(rows),
        "responses": responses,
        "cpu_ms": round(1000 * spent / max(1, responses), 3),
        "seconds": round(seconds, 1),
        "share": spent / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run whose rewriting has finished")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if not (arguments.run / "rewrite.json").is_file():
        parser.error(f"{arguments.run} has no rewrite.json; give the folder of a run whose rewriting has finished")
    found = costs(arguments.run)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['responses']} responses of {found['rows']} rows: {found['cpu_ms']} ms each,"
            f" {found['share']:.2%} of the {found['seconds']} s that rewriting took"
        )


if __name__ == "__main__":
    main()
