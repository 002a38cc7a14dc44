"""How each family of causal language models that transformers can build is trained: `python -m benchmarks.families`
[KIND ...] [--progress families.jsonl] [--write docs/families.md]

Builds a miniature of each family from its default configuration and compares what training computes with the model's own
logits, packed and row by row (`offsft.train.probe`). Results go to the progress file, line by line: the same command goes
on where it was stopped. With --write, the table of all families is written as a page. About ten minutes on two cores.
"""

import argparse
import importlib.metadata
import json
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

from offsft.errors import ModelError

TREATMENTS = ("packed", "row by row", "refused", "not tried")
_MOST_S = 60
"""Seconds after which a family is given up."""
_NEEDED: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 4, "moe_topk": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8, "head_dim": 128},
    "reformer": {"is_decoder": True},
    "xmod": {"default_language": "en_XX"},
}
"""Settings without which a family's default configuration does not build a model."""
_PAGE = """# Families of models

How training treats each family of causal language models that transformers {version} can build. Made by

    python -m benchmarks.families --write docs/families.md

which builds every kind of layer of each family in miniature, with random weights, and compares the log-probs that training computes with those
of the model's own logits and its written-out attention, row by row. Rows reach beyond windows, chunks and the lengths at which
rotary positions switch. A difference above {tolerance:g} nats, or one that is not a number, counts as not exact. `python -m jobs.check` does the
same with the configuration of your own model, and so does every job before it starts: settings of one model can decide otherwise than a family's
defaults do.

- **Packed** ({packed}): many rows per micro-batch, the fastest way.
- **Row by row** ({unpacked}): one row per micro-batch, as exact and slower, because packed rows would change each other.
- **Refused** ({refused}): by name, before anything starts.
- **Not tried** ({untried}): no small model can be built from the family's default configuration here. The workers try such a model itself before the
  first step, and refuse it if its packed rows or its log-probs are not the model's own.

## Packed

{packed_names}

## Row by row

| family | packed, a row's |
|---|---|
{unpacked_rows}

## Refused

| family | why |
|---|---|
{refused_rows}

## Not tried

| family | why |
|---|---|
{untried_rows}
"""


class _GivenUp(BaseException):
    """Not an Exception: the probes catch those of a family's own code, and try the next size."""


def main() -> None:
    arguments = _arguments()
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    progress = Path(arguments.progress)
    done = [json.loads(line) for line in progress.read_text().splitlines()] if progress.exists() else []
    known = {result["family"]: result for result in done}
    for kind in arguments.kinds or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if kind not in known:
            known[kind] = treatment_of(kind)
            with progress.open("a") as file:
                file.write(json.dumps(known[kind]) + "\n")
            print(json.dumps(known[kind]), file=sys.stderr, flush=True)
    if arguments.write:
        Path(arguments.write).write_text(page(list(known.values())), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*")
    parser.add_argument("--progress", default="families.jsonl")
    parser.add_argument("--write")
    return parser.parse_args()


def treatment_of(kind: str) -> dict[str, str]:
    """A family's treatment, `packed`, `row by row` or `refused`, and the reason where it is not packed."""
    from transformers import AutoConfig

    from offsft.train.miniature import build_miniature
    from offsft.train.probe import find_handling

    def give_up(*_: Any) -> None:
        raise _GivenUp

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_MOST_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = AutoConfig.for_model(kind, **_NEEDED.get(kind, {}))
            try:
                build_miniature(config)
            except ModelError as error:
                return {"family": kind, "treatment": "not tried", "why": str(error)}
            found = find_handling(config)
    except ModelError as error:
        return {"family": kind, "treatment": "refused", "why": str(error)}
    except _GivenUp:
        return {"family": kind, "treatment": "not tried", "why": f"{kind} was given up after {_MOST_S} s"}
    except Exception as error:  # a family whose default configuration its own code refuses
        reason = f"{kind} has no default configuration ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        return {"family": kind, "treatment": "not tried", "why": reason}
    finally:
        signal.alarm(0)
    return {
        "family": kind,
        "treatment": "packed" if found.packed else "row by row",
        "why": found.why_unpacked or "",
    }


def page(results: list[dict[str, str]]) -> str:
    """The page about all families, from their treatments."""
    from offsft.train.probe import TOLERANCE

    by = {name: sorted(r["family"] for r in results if r["treatment"] == name) for name in TREATMENTS}
    why = {result["family"]: result["why"].replace("|", "\\|") for result in results}

    def rows(names: list[str]) -> str:
        return "\n".join(f"| {name} | {why[name]} |" for name in names)

    return _PAGE.format(
        version=importlib.metadata.version("transformers"),
        tolerance=TOLERANCE,
        packed=len(by["packed"]),
        unpacked=len(by["row by row"]),
        refused=len(by["refused"]),
        packed_names=", ".join(by["packed"]),
        unpacked_rows=rows(by["row by row"]),
        refused_rows=rows(by["refused"]),
        untried=len(by["not tried"]),
        untried_rows=rows(by["not tried"]),
    )


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    main()
