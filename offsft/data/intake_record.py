"""The record of a run's input files, kept in its folder, and the changes to them since.

Files are identified by their content, so that one that was moved, or is in another job's copy of a folder, is the same.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from offsft.config import ModelConfig, ProblemRows
from offsft.data.files import existing_files
from offsft.errors import ConfigError
from offsft.models import fingerprint, resolve_folder
from offsft.storage.paths import StoragePath, at, write_json

Which = Literal["data", "evaluate"]
"""The section of the recipe whose `path` gives the problems."""
_NAMES = {"data": "intake.json", "evaluate": "intake-held-out.json"}


@dataclass(frozen=True, slots=True)
class FileStamp:
    """The state of a data file: its path, size, times of last change, and content digest."""

    file: str
    bytes: int
    written: list[int]
    """Times of the last change of the content and of the inode, nanoseconds; empty on S3: its digest costs nothing."""
    digest: str


@dataclass(frozen=True, slots=True)
class IntakeRecord:
    """The files behind `data.path` or `evaluate.path`, and the policy's fingerprint; None if there is none."""

    files: list[FileStamp]
    model: str | None = None


def stamp_files(rows: ProblemRows, setting: str, known: IntakeRecord | None = None) -> list[FileStamp]:
    """Stamps of the files behind the paths; one that was not written since `known` is not read again.

    Raises:
        ConfigError: one does not exist.
        DataError: one is empty or cannot be read.
    """
    if rows.path == "generated":
        return []
    before = {stamp.file: stamp for stamp in known.files} if known else {}
    return [_stamp(file, before.get(file)) for file in existing_files(rows, setting)]


def _stamp(file: str, before: FileStamp | None) -> FileStamp:
    place = at(file)
    if not isinstance(place, Path):
        info: Any = place.fs.info(place.path)
        return FileStamp(file, info["size"], [], info["ETag"])
    state = place.stat()
    # The second time changes with the content even if a copy or an editor resets the first one.
    written = [state.st_mtime_ns, state.st_ctime_ns]
    if before is not None and (before.bytes, before.written) == (state.st_size, written):
        return before
    with place.open("rb") as content:
        return FileStamp(file, state.st_size, written, hashlib.file_digest(content, "sha256").hexdigest())


def write_record(run: StoragePath, which: Which, record: IntakeRecord) -> None:
    """Record in a run's folder the input files of its problems, or of its held-out problems."""
    write_json(run / _NAMES[which], asdict(record))


def read_record(run: StoragePath, which: Which) -> IntakeRecord | None:
    """The record that `write_record` left; None if problems were taken in without it."""
    path = run / _NAMES[which]
    if not path.exists():
        return None
    tree = json.loads(path.read_text(encoding="utf-8"))
    return IntakeRecord([FileStamp(**each) for each in tree["files"]], tree["model"])


def changed_files(record: IntakeRecord, now: list[FileStamp]) -> list[str]:
    """A description of each file that is new, missing, or changed since it was taken in."""
    before, after = {stamp.digest for stamp in record.files}, {stamp.digest for stamp in now}
    known = {stamp.file for stamp in record.files}
    fresh = [
        f"{stamp.file} {'changed' if stamp.file in known else 'is new'}" for stamp in now if stamp.digest not in before
    ]
    replaced = {stamp.file for stamp in now if stamp.digest not in before}
    gone = [
        f"{stamp.file} is not there any more"
        for stamp in record.files
        if stamp.digest not in after and stamp.file not in replaced
    ]
    return fresh + gone


def is_same_model(record: IntakeRecord, model: ModelConfig) -> bool:
    """Whether the policy's folder is unchanged; a missing folder and a model's name are not checked here."""
    try:
        folder = resolve_folder(model)
    except ConfigError:
        return True  # the code that needs it reports that it is missing
    return folder is None or record.model is None or fingerprint(folder) == record.model
