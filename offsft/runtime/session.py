"""Join the given Ray cluster, or start a local one for the duration of a job."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from offsft.config import ClusterConfig
from offsft.errors import ConfigError
from offsft.runtime.shutdown import listen

_TRIES = 4
_LATE = "timed out during startup"
"""What Ray says of a node that is late."""
_REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def ray_session(cluster: ClusterConfig) -> Iterator[None]:
    """Connect to Ray for the block's duration. A local Ray that was started here ends with it; a cluster is only left.

    If this process has already joined Ray, that connection is used and stays.
    """
    if ray.is_initialized():
        yield
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    # Train's page of the dashboard stays empty without this.
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "1")
    common = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, ValueError) as error:  # ValueError: not a valid address
            raise ConfigError(
                f"no Ray cluster answers at {address!r} ({error}); is it running, and does it want a token"
                " (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH)? A recipe's job starts a local Ray where neither"
                " cluster.address nor RAY_ADDRESS is set"
            ) from None
    else:
        # Ray lowers its workers' priority by default; an engine's threads, one pinned to each core, then stall
        # whenever anything else runs at the same time.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Ray starts one worker for each core at once, without a job's environment: a job's tasks never use them.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        # Logical cores: an engine or a training process counts as one, and the small tasks around it need one too.
        start_ray(
            num_cpus=max(4, os.cpu_count() or 1),
            include_dashboard=cluster.dashboard,
            runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
            **common,
        )
    listen()
    try:
        yield
    finally:
        ray.shutdown()


def start_ray(**options: Any) -> None:
    """Start a local Ray with `ray.init`'s options, again where it is late: it gives its first node 30 s, too few on a busy machine.

    What a late one started ends with this process.

    Raises:
        ConfigError: Ray was late each time.
    """
    for _ in range(_TRIES):
        try:
            ray.init(address="local", **options)
        except Exception as error:  # Ray raises no narrower type for it
            if _LATE not in str(error):
                raise
        else:
            return
    raise ConfigError(
        f"Ray did not start within the 30 s that it gives itself, {_TRIES} times in a row: this machine has too much other"
        " work; wait for that to end, or set cluster.address to a Ray that runs already"
    )


def _python_path() -> str:
    """The PYTHONPATH of workers: they import offsft from where this process did, wherever the command was typed."""
    return os.pathsep.join(filter(None, [str(_REPOSITORY), os.environ.get("PYTHONPATH")]))
