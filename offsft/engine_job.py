"""Running a pool of engine actors over a folder of problems with Ray Data, resumably, row for row."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.data.checkpoint import CheckpointConfig
from ray.data.checkpoint.checkpoint_writer import PENDING_CHECKPOINT_SUFFIX

from offsft.config import Engine
from offsft.console import Console
from offsft.engine_actor import EngineActor
from offsft.errors import EngineError, RunFolderError
from offsft.foreman import hire
from offsft.placement import Need, engine_places
from offsft.progress import shown
from offsft.quarantine import poisoned
from offsft.stopping import gracefully
from offsft.storage import StoragePath, arrow, dataset, make, open_parquet, parquet_files, read_table

_WRITE_S = 5.0
_PENDING = f"{PENDING_CHECKPOINT_SUFFIX}.parquet"


@dataclass(frozen=True, slots=True)
class EngineJob:
    """What to run and where. `committed` holds the ids of the rows that are safely in `output`, `quarantine` the
    problems that killed their engines."""

    name: str
    actor: type[EngineActor]
    problems: StoragePath
    output: StoragePath
    committed: StoragePath
    quarantine: StoragePath
    batch_rows: int
    engine: Engine

    def run(self, arguments: Callable[[Any], tuple[Any, ...]], console: Console) -> dict[str, float]:
        """Map every problem that is not yet in the output; `arguments` makes the actors' from the foreman's handle.

        Ray Data commits a file of rows and their ids in two phases: after any death each problem is in the output
        once or not at all, and running this again does the rest. Returns this call's sampled tokens and seconds.

        Raises:
            EngineError: no engine could start; with the engine's own reason.
            KeyboardInterrupt: a signal ended the job; what was finished in the time of grace is in the output.
        """
        total = count_rows(self.problems)
        if self._complete(total):
            return {"sampled_tokens": 0, "seconds": 0.0}
        started_s = time.monotonic()
        foreman = hire(self.engine.poison_tries)
        make(self.output)
        filesystem, output = arrow(self.output)
        self._settle()

        def stop() -> None:
            console.say(f"{self.name}: stopping; what is in work has {self.engine.grace_s:g} s to finish")
            foreman.stop.remote()

        done = _rows(self.output) + len(poisoned(self.quarantine))
        with (
            shown(
                foreman,
                console,
                what=self.name,
                total=total,
                done_before=done,
                need=Need.of_engines(self.engine),
            ),
            engine_places(self.engine) as places,
            # Beyond the engines' own grace, what they finished is still to be written.
            gracefully(stop, self.engine.grace_s + _WRITE_S),
        ):
            try:
                self._dataset(arguments(foreman), places).write_parquet(output, filesystem=filesystem)
            except ray.exceptions.RayError as error:
                state: Any = ray.get(foreman.state.remote())
                if state.error is not None:
                    raise EngineError(f"{state.error}\nThe engine's log is in logs/ of the run's folder.") from error
                raise
        if not self._complete(total):
            raise RunFolderError(
                f"{self.output} does not hold each of the {total} problems once; run the same command again, and if"
                " this comes back, keep the folder and report it"
            )
        state: Any = ray.get(foreman.state.remote())
        return {"sampled_tokens": state.tokens, "seconds": time.monotonic() - started_s}

    def _settle(self) -> None:
        """End what a kill cut short in the middle: a file of ids is committed by a rename, on S3 a copy and a deletion.

        Where both are there the commit is done. Ray Data would take it for one that is not, and delete the rows.
        """
        for pending in self.committed.glob(f"*{_PENDING}"):
            if pending.with_name(pending.name.replace(_PENDING, ".parquet")).exists():
                pending.unlink()

    def _dataset(self, arguments: tuple[Any, ...], places: dict[str, Any]) -> ray.data.Dataset:
        context = ray.data.DataContext.get_current().copy()
        filesystem, committed = arrow(self.committed)
        context.checkpoint_config = CheckpointConfig(
            id_column="id",
            checkpoint_path=committed,
            delete_checkpoint_on_success=False,
            override_filesystem=filesystem,
        )
        # The second reader packs small files into one block; here a file is the unit that is committed.
        context.use_datasource_v2 = False
        with ray.data.DataContext.current(context):
            shards = [arrow(path)[1] for path in parquet_files(self.problems)]
            read = ray.data.read_parquet(shards, filesystem=filesystem, override_num_blocks=len(shards))
            mapped = read.map_batches(
                self.actor,  # type: ignore[arg-type]  # Ray's annotation knows functions only
                fn_constructor_args=arguments,
                batch_format="pyarrow",
                batch_size=self.batch_rows,
                compute=ray.data.ActorPoolStrategy(
                    min_size=self.engine.actors,
                    max_size=self.engine.actors_max or self.engine.actors,
                    max_tasks_in_flight_per_actor=2 * self.engine.concurrent_commits,
                ),
                max_concurrency=self.engine.concurrent_commits,
                **places,
            )
            mapped.set_name(self.name)
        return mapped

    def _complete(self, total: int) -> bool:
        poison = {each.encode() for each in poisoned(self.quarantine)}
        if _rows(self.output) + len(poison) < total:
            return False  # known without reading an id
        ids = _ids(self.output)
        done = np.unique(ids)
        only_poison = len(poison) - int(np.isin(np.array(sorted(poison)), done).sum()) if poison else 0
        return len(ids) == len(done) and len(done) + only_poison == total


def _rows(folder: StoragePath) -> int:
    """Rows in a folder's files, but for a file that a kill left half-written: Ray Data removes that when it goes on."""
    rows = 0
    for path in parquet_files(folder):
        with suppress(pa.ArrowInvalid), open_parquet(path) as file:
            rows += file.metadata.num_rows
    return rows


def _ids(folder: StoragePath) -> np.ndarray:
    """Ids of the rows that `_rows` counts, `(N)`, as bytes: 32 for each, and not five times that for a string object."""
    parts = [np.array([], dtype="S32")]
    for path in parquet_files(folder):
        with suppress(pa.ArrowInvalid):
            ids = read_table(path, columns=["id"])["id"].to_pylist()
            parts.append(np.array([each.encode() for each in ids], dtype=np.bytes_))
    return np.concatenate(parts)


def count_rows(folder: StoragePath) -> int:
    """Rows in the Parquet files of a folder; 0 where there is none."""
    return dataset(folder).count_rows() if parquet_files(folder) else 0
