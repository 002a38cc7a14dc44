"""torch extensions that training compiles, such as DeepSpeed's GPU operations, and their lock.

torch guards an extension's folder with a plain file named `lock`: a process that finds it waits until it is gone. If
its owner was killed, the file stays. Here the lock is the kernel's, which is released when its holder dies. The next
process in line then compiles, and ninja does only the remaining work. A compiler that outlives its killed parent does
no harm: it replaces whole files.
"""

import os
import sys
from pathlib import Path

import torch.utils.cpp_extension
from filelock import FileLock, Timeout
from torch.utils.file_baton import FileBaton

from offsft.runtime.compiled_code import compiled_folder, whole_file_compiler
from offsft.train import phases
from offsft.train.phases import Phase


def prepare_extensions() -> None:
    """Give this process's extensions a folder for these versions and this machine, and locks that die with the holder.

    A folder that the user has named in TORCH_EXTENSIONS_DIR is kept.
    """
    folder = compiled_folder()
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(folder / "extensions"))
    compiler = whole_file_compiler(folder)
    if compiler is not None:
        os.environ["CXX"] = str(compiler)
    torch.utils.cpp_extension.FileBaton = KernelLock  # type: ignore[attr-defined, misc]


class KernelLock(FileBaton):
    """Replaces torch's lock on an extension's folder."""

    def __init__(self, lock_file_path: str, wait_seconds: float = 0.1, warn_after_seconds: float | None = None) -> None:
        super().__init__(lock_file_path, wait_seconds, warn_after_seconds)
        self._folder = Path(lock_file_path).parent
        self._lock = FileLock(self._folder / ".lock")
        self._before = Phase.BUILDING

    def try_acquire(self) -> bool:
        """Wait for the lock and always take it: torch never calls `wait`, and never imports uncompiled extensions."""
        self._before = phases.begin(Phase.WAITING_FOR_COMPILER)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            sys.stderr.write(f"{self._folder.name}: waiting for another process that compiles it\n")
            self._lock.acquire()
        phases.begin(Phase.COMPILING)
        if not any(self._folder.glob("*.so")):
            sys.stderr.write(f"{self._folder.name}: compiling, once on this machine, into {self._folder}\n")
        return True

    def release(self) -> None:
        self._lock.release()
        phases.begin(self._before)
