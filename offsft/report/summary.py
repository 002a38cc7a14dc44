"""Writes summary.json: the results of all finished stages in one small file."""

import json
import math
from typing import Any

from offsft.errors import RunFolderError
from offsft.storage.paths import StoragePath, nan_to_null, write_json

STAGES = ("rewrite", "train", "evaluate")

_GAP = ("expert_mean_logprob", "kept_mean_logprob")


def stage_result(run: StoragePath, stage: str) -> dict[str, Any] | None:
    """The content of a finished stage's `<stage>.json`, or None if the stage has not finished.

    Raises:
        RunFolderError: the file exists but is not a JSON object, or not of this version.
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
    if stage == "rewrite" and "sources" not in result:
        raise RunFolderError(f"{path} has no counts by source: another version wrote it; delete it and rewrite again")
    return result


def read_summary(run: StoragePath) -> dict[str, Any]:
    """Merge the stages' results; unfinished stages are absent. Log-probs in nats per token.

    Figures that could not be measured (the standard error of a single problem) are None.

    Raises:
        RunFolderError: a stage's file is broken.
    """
    results = {stage: stage_result(run, stage) for stage in STAGES}
    finished = {stage: nan_to_null(result) for stage, result in results.items() if result is not None}
    if not {"base", "trained"} & finished.get("evaluate", {}).keys():
        finished.pop("evaluate", None)  # models other than the run's own: evaluation.html shows them
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
    """Write `summary.json` into the run's folder, atomically, and return its content.

    Raises:
        RunFolderError: a stage's file is broken.
    """
    summary = read_summary(run)
    write_json(run / "summary.json", summary)
    return summary


def standard_errors(difference: dict[str, Any] | None) -> float | None:
    """A difference in units of its standard error; None if there is no difference or no error to divide by."""
    if not difference or difference.get("mean") is None or not difference.get("stderr"):
        return None
    return difference["mean"] / difference["stderr"]
