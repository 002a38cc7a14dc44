"""Assumptions of `jobs.plan` about the machines and the problems. They change an estimate, never a run."""

from typing import Annotated, Literal

from pydantic import Field

from offsft.config.base import Strict


class PlanConfig(Strict):
    gpu: Literal["h200", "h100", "a100", "rtx4090"] = "h100"
    """Kind of GPU, for its memory, compute and bandwidth as specified by its vendor."""
    gpus: int = Field(default=8, ge=1)
    """GPUs in the cluster."""
    gpus_per_node: int = Field(default=8, ge=1)
    """GPUs per node."""
    node_memory_gib: float = Field(default=1024, gt=0)
    """Main memory per node, GiB."""
    problems: int | None = Field(default=None, ge=1)
    """Problems to rewrite; unset: `data.limit`, or `data.generated_problems` where they are generated."""
    held_out_problems: int | None = Field(default=None, ge=1)
    """Problems of the evaluation, over all suites; unset: `evaluate.limit` per suite."""
    prompt_tokens: int = Field(default=200, ge=1)
    """Mean length of a prompt, tokens."""
    response_tokens: int = Field(default=600, ge=1)
    """Mean length of a response, tokens."""
    accept: dict[str, Annotated[float, Field(ge=0, le=1)]] = {}
    """Share of a stage's samples that are kept, over the problems that reach it, by the stage's name; unnamed: 0.4 for stages of kind self, 0.5 for others."""
    compute_share: float = Field(default=0.4, gt=0, le=1)
    """Share of a GPU's compute that training and prefill reach."""
    bandwidth_share: float = Field(default=0.6, gt=0, le=1)
    """Share of a GPU's memory bandwidth that decoding reaches."""
    host_gb_per_s: float = Field(default=20, gt=0)
    """Transfer rate of an offloaded optimizer between main memory and a GPU, GB/s per training process."""
