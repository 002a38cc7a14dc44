"""python -m jobs.export run=RUN format=messages|prompt_completion|sharegpt|dpo|rl path=FILE [sources=[...]] [data_source=NAME]

Write a run's rewrites into a file for another trainer. Run and file lie on a disk or on S3; the file ends in .jsonl or
.parquet, and must not exist yet.

    python -m jobs.export run=runs/demo format=messages path=train.jsonl

format
    messages            a conversation per row (TRL's SFTTrainer, and most others)
    prompt_completion   prompt and completion as turns (TRL's SFTTrainer: loss on the completion alone)
    sharegpt            conversations of from and value (LLaMA-Factory, Axolotl)
    dpo                 prompt, chosen and rejected: a kept response and a refused attempt at the same problem (TRL's
                        DPOTrainer); needs rewrite.keep_text=true, the default
    rl                  every problem's prompt with its reference answer and the policy's pass rate (verl; .parquet only)
sources=[self,guided]   the stages whose rows are written; by default all but expert, whose rows are no rewrites; sources=all
                        takes them too
data_source=NAME        for rl: the name by which verl chooses the reward function; by default offsft/ and the run's name

Printed is how many rows were written, by source, and how many were left out and why.
"""

from pathlib import Path

from offsft.errors import ConfigError

from .cli import run_plain

KNOWN = ("run", "format", "path", "sources", "data_source")


def _export(path: Path | None, settings: dict[str, str]) -> None:
    from offsft.export.run import export

    if path is not None:
        raise ConfigError(f"{path}: a recipe is not needed; give the run's folder as run=")
    print(export(settings).told(), flush=True)


if __name__ == "__main__":
    run_plain(_export, str(__doc__), KNOWN)
