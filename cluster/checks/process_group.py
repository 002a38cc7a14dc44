"""A job to submit: two training processes on two nodes add up their tensors; prints where they ran and the sum."""

import json
import sys
from typing import Any

import ray
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer

from offsft.runtime.session import ray_session
from offsft.train.process_group import ProcessGroup


def _work(config: dict[str, Any]) -> dict[str, Any]:
    rank = torch.distributed.get_rank()
    nodes: list[Any] = [None, None]
    torch.distributed.all_gather_object(nodes, ray.get_runtime_context().get_node_id())
    total = torch.tensor([rank + 1.0])
    torch.distributed.all_reduce(total)
    return {"nodes": len(set(nodes)), "sum": total.item()}


def main() -> None:
    from offsft.config import ClusterConfig

    with ray_session(ClusterConfig()):
        trainer = TorchTrainer(
            _work,
            train_loop_config={},
            torch_config=ProcessGroup(),
            scaling_config=ScalingConfig(num_workers=2, placement_strategy="STRICT_SPREAD"),
        )
        sys.stdout.write(f"process group: {json.dumps(trainer.fit().return_value)}\n")


if __name__ == "__main__":
    main()
