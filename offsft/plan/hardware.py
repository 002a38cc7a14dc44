"""GPUs that a plan knows, and what every GPU needs besides the model."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory in bytes, dense bfloat16 operations and bytes per second, as the vendor states them (data centre: SXM)."""

    memory: float
    flops: float
    bandwidth: float


GPUS = {
    "h200": Gpu(141e9, 989e12, 4.8e12),
    "h100": Gpu(80e9, 989e12, 3.35e12),
    "a100": Gpu(80e9, 312e12, 2.04e12),
    "rtx4090": Gpu(24e9, 165e12, 1.008e12),
}
