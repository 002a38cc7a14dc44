"""Ends a vLLM engine whose owner has died.

vLLM runs an engine's core as a process of its own, often with workers below it, and the core does not watch the process
that started it. If that process is killed (a driver by SIGKILL, an actor together with its raylet), the core would keep
its memory, and its GPU, for ever. vLLM imports the class named as `worker_extension_cls` where the model runs, so this
module watches from there: nothing else may import it, since only the first import in a process starts the watch.
Linux only: elsewhere nothing is watched.
"""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

_EVERY_S = 2.0
_CORE = b"VLLM::EngineCore"
"""Start of the title of an engine's core process."""


class Lifeline:
    """A worker extension without methods: importing it starts the watch."""


def watch(every_s: float = _EVERY_S) -> None:
    """End this process, and the engine's core above it, once the process above these has gone."""
    parent = os.getppid()
    owner = _parent_of(parent)
    while True:
        time.sleep(every_s)
        if os.getppid() != parent:
            os._exit(1)
        # The core has its title only once it has started. Without one the parent is the owner itself.
        if _is_core(parent) and _parent_of(parent) != owner:
            os.kill(parent, signal.SIGKILL)
            os._exit(1)


def _parent_of(process: int) -> int | None:
    """The parent's id; None for a process that has gone."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return None
    return int(status.rpartition(")")[2].split()[1])


def _is_core(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().startswith(_CORE)
    except OSError:
        return False


def _start() -> None:
    if Path("/proc/self/stat").exists():
        threading.Thread(target=watch, name="lifeline", daemon=True).start()


if multiprocessing.parent_process() is not None:  # in a process that vLLM started, not where arguments are made
    _start()
