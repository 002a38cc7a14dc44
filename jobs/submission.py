"""The run's folder of a job that was submitted to a cluster, and so does not run where it was typed."""

import os
from pathlib import Path

from offsft.config import Recipe
from offsft.errors import ConfigError

_MARK = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this for the command of a submitted job, and for nothing else."""


def with_lasting_run(recipe: Recipe) -> Recipe:
    """The recipe with a run's folder that outlives the job: a relative one is moved below the cluster's storage.

    A submitted job runs in a temporary copy of the submitted folder, which Ray deletes.

    Raises:
        ConfigError: the run's folder is relative, and the cluster names no storage.
    """
    if _MARK not in os.environ or "://" in recipe.run or Path(recipe.run).is_absolute():
        return recipe
    storage = recipe.cluster.storage or os.environ.get("OFFSFT_STORAGE")
    if not storage:
        raise ConfigError(
            f"run={recipe.run} is relative: a submitted job would leave it in a temporary folder that Ray deletes; give"
            " a path on shared storage mounted on every node, as run=/mnt/shared/... or with cluster.storage=/mnt/shared, or start"
            " the nodes with OFFSFT_STORAGE"
        )
    if "://" in storage:
        return recipe.model_copy(update={"run": f"{storage.rstrip('/')}/{recipe.run}"})
    if not Path(storage).is_dir():
        raise ConfigError(
            f"the cluster's storage {storage} is not a folder on this node; mount it there, or name another"
        )
    return recipe.model_copy(update={"run": str(Path(storage) / recipe.run)})
