"""Joining the Ray cluster that is given, or starting a local one for the length of a job."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from offsft.config import Cluster
from offsft.errors import ConfigError
from offsft.stopping import listen

_REPOSITORY = Path(__file__).resolve().parent.parent


@contextmanager
def ray_session(cluster: Cluster) -> Iterator[None]:
    """Ray for the block's duration. A local one that was started here ends with it; a cluster is only left.

    Where this process has joined Ray already, that is used and stays.
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
        except (ConnectionError, ValueError) as error:  # ValueError: what is given is no address
            raise ConfigError(
                f"no Ray cluster answers at {address!r} ({error}); is it running, and does it want a token"
                " (RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH)? A recipe's job starts a local Ray where neither"
                " cluster.address nor RAY_ADDRESS is set"
            ) from None
    else:
        # Ray lowers its workers' priority by default; an engine's threads, one pinned to each core, then stand still
        # whenever anything else runs beside them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Logical cores: an engine or a training process counts as one, and the small tasks around it need one too.
        ray.init(
            address="local",
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


def _python_path() -> str:
    """Workers import offsft from where this process did, wherever the command was typed."""
    return os.pathsep.join(filter(None, [str(_REPOSITORY), os.environ.get("PYTHONPATH")]))
