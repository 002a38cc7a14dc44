"""summary.json: the results of all finished stages in one small file."""

import json
import math
from typing import Any

from offsft.errors import RunFolderError
from offsft.run_folder import write_text_atomically
from offsft.storage import StoragePath

STAGES = ("rewrite", "train", "evaluate")

_GAP = ("expert_mean_logprob", "kept_mean_logprob")


def stage_result(run: StoragePath, stage: str) -> dict[str, Any] | None:
    """What a finished stage left in `<stage>.json`, or None where it has not finished.

    Raises:
        RunFolderError: the file is there but is not a JSON object.
    """
    path = run / f"{stage}.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunFolderError(f"{path} is not valid JSON ({error}); delete it and run the stage again") from None
    if not isinstance(result, dict):
        raise RunFolderError(f"{path} holds no JSON object; delete it and run the stage again")
    return result


def read_summary(run: StoragePath) -> dict[str, Any]:
    """Merge the stages' results; stages that have not finished are absent. Log-probs in nats a token.

    Figures that could not be measured (the standard error of a single problem) are None.

    Raises:
        RunFolderError: a stage's file is broken.
    """
    results = {stage: stage_result(run, stage) for stage in STAGES}
    finished = {stage: _measured(result) for stage, result in results.items() if result is not None}
    if not {"base", "trained"} & finished.get("evaluate", {}).keys():
        finished.pop("evaluate", None)  # other models than the run's own: evaluation.html shows them
    summary: dict[str, Any] = {}
    if "rewrite" in finished:
        rewrite = finished["rewrite"]
        summary["gap"] = {key: rewrite.pop(key, None) for key in _GAP}
        if "gap" in rewrite:
            summary["gap"]["before"] = rewrite.pop("gap")
        summary["rewrite"] = rewrite
    if (finished.get("train") or {}).get("gap"):
        summary.setdefault("gap", dict.fromkeys(_GAP))["training"] = finished["train"].pop("gap")
    summary |= {stage: finished[stage] for stage in ("train", "evaluate") if stage in finished}
    summary["seconds"] = math.fsum(result.get("seconds") or 0 for result in finished.values())
    return summary


def write_summary(run: StoragePath) -> dict[str, Any]:
    """Write `summary.json` into the run's folder, atomically, and return what it holds.

    Raises:
        RunFolderError: a stage's file is broken.
    """
    summary = read_summary(run)
    write_text_atomically(run / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
    return summary


def standard_errors(difference: dict[str, Any] | None) -> float | None:
    """A difference in units of its standard error; None where there is no difference or no error to divide by."""
    if not difference or difference.get("mean") is None or not difference.get("stderr"):
        return None
    return difference["mean"] / difference["stderr"]


def _measured(value: Any) -> Any:
    """The same tree with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: _measured(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_measured(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
