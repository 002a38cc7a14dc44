"""Estimates a recipe's memory and time from the model's shape; docs/planning.md explains each formula.

Units are bytes, tokens and seconds; memory is per GPU. Needs no framework, cluster or model.
"""

from offsft.plan.estimate import CostEstimate, estimate
from offsft.plan.hardware import GIB, GPUS, Gpu
from offsft.plan.sampling import CascadeCost, Sampling, cascade_of, expected_samples, sampling
from offsft.plan.shape import STATED, Shape, shape_of
from offsft.plan.training import Training, train_seconds, training

__all__ = [
    "GIB",
    "GPUS",
    "STATED",
    "CascadeCost",
    "CostEstimate",
    "Gpu",
    "Sampling",
    "Shape",
    "Training",
    "cascade_of",
    "estimate",
    "expected_samples",
    "sampling",
    "shape_of",
    "train_seconds",
    "training",
]
