"""The files behind `data.path` and `evaluate.path`: local or s3://, a file, a folder, or a list."""

from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from offsft.errors import DataError


def existing_files(paths: list[str], setting: str) -> list[str]:
    """All files behind the paths that are not empty, folders expanded, in order.

    Raises:
        DataError: one is missing, empty or cannot be read; named by its `setting` (`data.path`).
    """
    files: list[str] = []
    for path in paths:
        prefix = "s3://" if path.startswith("s3://") else ""
        try:
            filesystem, inner = pyarrow.fs.FileSystem.from_uri(path if prefix else str(Path(path).resolve()))
            info = filesystem.get_file_info(inner)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{setting}={path} cannot be read: {error}") from None
        if info.type is pyarrow.fs.FileType.File:
            found = [info]
        elif info.type is pyarrow.fs.FileType.Directory:
            selector = pyarrow.fs.FileSelector(inner, recursive=True)
            found = [f for f in filesystem.get_file_info(selector) if f.type is pyarrow.fs.FileType.File]
        else:
            raise DataError(f"{setting}={path} does not exist; give a JSONL or Parquet file, or a folder of them")
        if not any(f.size for f in found):
            raise DataError(f"{setting}={path} is empty; it should hold one problem a line (JSONL) or a row (Parquet)")
        files.extend(prefix + f.path for f in sorted(found, key=lambda f: f.path) if f.size)
    return files
