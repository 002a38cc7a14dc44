"""Runs a pool of engine actors over a folder of problems with Ray Data, resumably, row for row.

The driver runs one job at a time and owns its coordinator, the engines' placement in the cluster, and the display. Ray
Data owns the actors and the files: it reads `problems`, hands batches to the actors, and commits the output rows.

Why each row is written exactly once: Ray Data writes the ids of some rows to `committed` under a pending name, then the
rows to `output`; renaming the file of ids commits both. When a job starts, rows of pending ids are deleted, and their
problems are done again. Three rules follow:

- `_end_half_commits` comes before the data set is made: on S3 a rename is a copy and a deletion, and a kill in between
  would make Ray Data delete finished rows.
- The plan begins with a file read and ends with a file write. Rows that come from memory are silently duplicated by Ray
  Data.
- Two jobs never run on one folder; the run's lock prevents it.

A problem that killed its engines too often is in `quarantine` instead. The job is complete when each problem is in
either place, which is counted from the files, never from the actors' reports.
"""

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import ray.exceptions
from ray.data.checkpoint import CheckpointConfig
from ray.data.checkpoint.checkpoint_writer import PENDING_CHECKPOINT_SUFFIX

from offsft.config import EngineConfig
from offsft.data.quarantine import poison_ids
from offsft.errors import EngineError, RunFolderError
from offsft.inference.actor import EngineActor
from offsft.inference.coordinator import open_coordinator
from offsft.inference.progress import show_progress
from offsft.runtime.console import Console
from offsft.runtime.metrics import ascii_label
from offsft.runtime.placement import Need, engine_places
from offsft.runtime.shutdown import stop_gracefully
from offsft.storage.paths import StoragePath, arrow, dataset, make, open_parquet, parquet_files, read_table, write_json

_WRITE_S = 5.0
_PENDING = f"{PENDING_CHECKPOINT_SUFFIX}.parquet"


@dataclass(frozen=True, slots=True)
class EngineJob:
    """The actor class to run, and the folders and settings that it runs with.

    `committed` holds the ids of the rows that are committed to `output`, `quarantine` the problems that killed their
    engines. `batch_rows` rows are committed together.
    """

    name: str
    actor: type[EngineActor]
    problems: StoragePath
    output: StoragePath
    committed: StoragePath
    quarantine: StoragePath
    batch_rows: int
    engine: EngineConfig

    def run(self, arguments: Callable[[Any], tuple[Any, ...]], console: Console) -> dict[str, Any]:
        """Map every problem that is not yet in the output.

        `arguments` makes the actors' constructor arguments from the coordinator's handle. Ray Data commits a file of
        rows and their ids in two phases: after any death each problem is in the output once or not at all, and running
        this again does the rest. Returns this call's sampled tokens and seconds, and the `usage` of a server that
        counts tokens over all calls on this folder (None for a local engine).

        Raises:
            EngineError: no engine could start; with the engine's own reason.
            KeyboardInterrupt: a signal ended the job; problems finished within the grace period are in the output.
        """
        total = count_rows(self.problems)
        if self._complete(total):
            return {"sampled_tokens": 0, "seconds": 0.0, "usage": self._usage()}
        started_s = time.monotonic()
        with open_coordinator(self.engine.poison_tries, self.engine.start_tries) as coordinator:
            tokens = self._map(coordinator, arguments, total, console)
        return {"sampled_tokens": tokens, "seconds": time.monotonic() - started_s, "usage": self._usage()}

    def _map(self, coordinator: Any, arguments: Callable[[Any], tuple[Any, ...]], total: int, console: Console) -> int:
        """Map the problems that are not yet in the output; returns the number of sampled tokens."""
        make(self.output)
        filesystem, output = arrow(self.output)
        self._end_half_commits()

        # On a signal: no further problem is begun, and those in progress have the engines' grace period.
        def stop() -> None:
            console.say(f"{self.name}: stopping; what is in work has {self.engine.grace_s:g} s to finish")
            coordinator.stop.remote()

        done = _rows(self.output) + len(poison_ids(self.quarantine))
        # In this order: the display shows what the places wait for, and the places outlive the actors placed in them.
        with (
            show_progress(
                coordinator,
                console,
                what=self.name,
                total=total,
                done_before=done,
                need=Need.of_engines(self.engine),
            ),
            engine_places(self.engine) as places,
            # After the engines' own grace period, their finished rows still have to be written.
            stop_gracefully(stop, self.engine.grace_s + _WRITE_S),
        ):
            try:
                self._dataset(arguments(coordinator), places).write_parquet(output, filesystem=filesystem)
            except ray.exceptions.RayError as error:
                state: Any = ray.get(coordinator.state.remote())
                if state.error is not None:
                    raise EngineError(f"{state.error}\nThe engine's log is in logs/ of the run's folder.") from error
                raise
            finally:
                self._keep_usage(coordinator)
        if not self._complete(total):
            raise RunFolderError(
                f"{self.output} does not hold each of the {total} problems once; run the same command again, and if"
                " this comes back, keep the folder and report it"
            )
        state: Any = ray.get(coordinator.state.remote())
        return state.tokens

    def _keep_usage(self, coordinator: Any) -> None:
        """Write this call's usage of a server that counts tokens: it is paid for, however the call ends."""
        state: Any = None
        with suppress(ray.exceptions.RayError):  # the usage is lost with its coordinator
            state = ray.get(coordinator.state.remote())
        if state is not None and state.usage.requests:
            cost = state.usage.cost(self.engine.remote)
            folder = self._usage_folder()
            make(folder)
            write_json(folder / f"{time.time_ns()}.json", {**asdict(state.usage), "cost": cost})

    def _usage(self) -> dict[str, Any] | None:
        """Requests, tokens and cost of all calls on this folder."""
        total: Counter[str] = Counter()
        for path in self._usage_folder().glob("*.json"):
            total.update(json.loads(path.read_text(encoding="utf-8")))
        return dict(total) or None

    def _usage_folder(self) -> StoragePath:
        return self.output.with_name(f"{self.output.name}.usage")

    def _end_half_commits(self) -> None:
        """Delete pending files of ids whose committed copy exists: a kill came between the copy and the deletion.

        Ray Data would consider the commit unfinished, and delete the rows.
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
        # The second reader packs small files into one block; here a file is the unit of commit.
        context.use_datasource_v2 = False
        # Half an hour without a finished group is no failure: answers may be long, and places may be waited for. What hangs
        # is found by `engine.stall_s`.
        context.execution_no_progress_timeout_s = -1
        commits = self.engine.commits_in_progress(self.batch_rows)
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
                    max_tasks_in_flight_per_actor=2 * commits,
                ),
                max_concurrency=commits,
                **places,
            )
            mapped.set_name(ascii_label(self.name))
        return mapped

    def _complete(self, total: int) -> bool:
        """Whether each problem is in the output exactly once, or in quarantine and not in the output."""
        poison = {each.encode() for each in poison_ids(self.quarantine)}
        if _rows(self.output) + len(poison) < total:
            return False  # known without reading an id
        ids = _ids(self.output)
        done = np.unique(ids)
        only_poison = len(poison) - int(np.isin(np.array(sorted(poison)), done).sum()) if poison else 0
        return len(ids) == len(done) and len(done) + only_poison == total


def _rows(folder: StoragePath) -> int:
    """Rows in a folder's files, skipping a file that a kill left half-written: Ray Data removes it on resuming."""
    rows = 0
    for path in parquet_files(folder):
        with suppress(pa.ArrowInvalid), open_parquet(path) as file:
            rows += file.metadata.num_rows
    return rows


def _ids(folder: StoragePath) -> np.ndarray:
    """Ids of the rows that `_rows` counts, `(N)`, as bytes: 32 per id, a fifth of a string object's size."""
    parts = [np.array([], dtype="S32")]
    for path in parquet_files(folder):
        with suppress(pa.ArrowInvalid):
            ids = read_table(path, columns=["id"])["id"].to_pylist()
            parts.append(np.array([each.encode() for each in ids], dtype=np.bytes_))
    return np.concatenate(parts)


def count_rows(folder: StoragePath) -> int:
    """Number of rows in a folder's Parquet files; 0 if there are none."""
    return dataset(folder).count_rows() if parquet_files(folder) else 0
