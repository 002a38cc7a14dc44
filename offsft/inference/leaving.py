"""Makes an engine's actor leave with its job, in every way that a job ends.

Where all goes well, Ray Data drops its actors, and they close their engines. Where a stage fails or is interrupted and
its process goes on, Ray Data leaves their end to the garbage collector, and an error that somebody still holds keeps
them, with their processors. So each actor watches the stage's coordinator, which the driver ends with the stage.

It asks again and again and has no call that waits for the end: Ray lets a process whose actor could not be made exit
only after its calls have returned, and until then reports the actor as one that is still being made.
"""

import threading
import time
import weakref
from contextlib import suppress
from typing import Any, Protocol

import ray
import ray.exceptions

LEAVE_S = 5.0
"""Seconds that Ray Data has to end its actors by itself after the job's end."""
_POLL_S = 2.0


class Closable(Protocol):
    def close(self) -> None: ...


def leave_with_job(coordinator: Any, engine: Closable) -> None:
    """Once the coordinator is gone, close `engine` and end this process's actor, for good: Ray would restart a process that exits."""
    me = ray.get_runtime_context().current_actor
    # Weak: Ray Data drops the engine to end it.
    threading.Thread(target=_leave, args=(coordinator, weakref.ref(engine), me), daemon=True).start()


def _leave(coordinator: Any, engine: "weakref.ref[Closable]", me: Any) -> None:
    with suppress(ray.exceptions.RayError):
        while True:
            with suppress(ray.exceptions.ActorUnavailableError):  # a broken connection, which may come back
                ray.get(coordinator.is_open.remote())
            time.sleep(_POLL_S)
    time.sleep(LEAVE_S)
    held = engine()
    if held is not None:
        with suppress(Exception):  # whatever an engine's end says: the process ends now
            held.close()
    ray.kill(me, no_restart=True)
