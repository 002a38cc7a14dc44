"""The number type that a machine computes natively, for `model.dtype: auto`."""

from pathlib import Path
from typing import Any

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
"""Instructions for bfloat16 as Linux lists them: Intel's, Intel's and AMD's, and Arm's."""

_GPU_SETTINGS = (("engine", "gpus"), ("train", "gpus_per_worker"))


def native_dtype(*, gpus: bool) -> str:
    """`bfloat16` on GPUs and on a processor with instructions for it, else `float32`.

    A processor without them computes bfloat16 several times slower than float32. GPUs are those of other nodes, so they
    are not looked at: all from NVIDIA's Ampere on have it.
    """
    return "bfloat16" if gpus or _BFLOAT16_FLAGS & _flags() else "float32"


def with_native_dtype(tree: dict[str, Any]) -> dict[str, Any]:
    """Replace a recipe's `model.dtype: auto`, or an unset one, by this machine's.

    Done once, where the recipe is read: a run's folder keeps the type itself, so no other machine goes on with another.
    """
    model = tree.get("model") or {}
    if _setting(model, "dtype", "auto") != "auto":
        return tree
    gpus = any(_setting(tree.get(section), name, 0) for section, name in _GPU_SETTINGS)
    dtype = {"dtype": native_dtype(gpus=gpus)}
    return tree | {"model": model | dtype if isinstance(model, dict) else model.model_copy(update=dtype)}


def _setting(section: Any, name: str, default: Any) -> Any:
    if isinstance(section, dict):
        return section.get(name, default)
    return getattr(section, name, default)


def _flags() -> frozenset[str]:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return frozenset()
    return frozenset(
        flag
        for line in lines
        if line.lower().startswith(("flags", "features"))
        for flag in line.partition(":")[2].split()
    )
