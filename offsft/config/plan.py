"""Assumptions of `jobs.plan`: the machines, and what a problem is like. They change an estimate, never a run."""

from typing import Literal

from pydantic import Field

from offsft.strict import Strict


class Plan(Strict):
    gpu: Literal["h200", "h100", "a100"] = "h100"
    """Kind of GPU, for its memory, arithmetic and bandwidth as its maker states them."""
    gpus: int = Field(default=8, ge=1)
    """GPUs of the cluster."""
    gpus_per_node: int = Field(default=8, ge=1)
    """GPUs of a node."""
    node_memory_gib: float = Field(default=1024, gt=0)
    """Main memory of a node, GiB."""
    problems: int | None = Field(default=None, ge=1)
    """Problems to rewrite; unset: `data.limit`, or `data.generated_problems` where they are generated."""
    held_out_problems: int | None = Field(default=None, ge=1)
    """Problems of the evaluation, over all suites; unset: `evaluate.limit` for each."""
    prompt_tokens: int = Field(default=200, ge=1)
    """Mean length of a prompt, tokens."""
    response_tokens: int = Field(default=600, ge=1)
    """Mean length of a response, tokens."""
    accept_self: float = Field(default=0.4, ge=0, le=1)
    """Share of own samples that are correct, over all problems."""
    accept_guided: float = Field(default=0.5, ge=0, le=1)
    """Share of guided samples that are kept, over the problems that get there."""
    compute_share: float = Field(default=0.4, gt=0, le=1)
    """Share of a GPU's arithmetic that training and prefill reach."""
    bandwidth_share: float = Field(default=0.6, gt=0, le=1)
    """Share of a GPU's memory bandwidth that decoding reaches."""
    host_gb_per_s: float = Field(default=20, gt=0)
    """What an offloaded optimizer moves between main memory and a GPU, GB/s for each training process."""
