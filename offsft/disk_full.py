"""Telling a full disk from other faults, whatever wrapped it on its way to the driver."""

import errno

from offsft.errors import OffsftError

_CODES = (errno.ENOSPC, errno.EDQUOT)
# Arrow and torch's writer raise errors of their own kind; of the cause they keep the text at most.
_TEXTS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing file")


def disk_full(error: BaseException) -> OffsftError | None:
    """What to tell the user where the disk being full is somewhere in an error's story; None where it is not."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in _CODES or any(text in str(seen) for text in _TEXTS):
            return OffsftError(
                "the disk is full, or a quota is used up; all that was finished before is kept. Free some space (the"
                " temporary folder, TMPDIR, needs room for a checkpoint too); the same command continues from there"
            )
        inner = [e for e in getattr(seen, "worker_failures", {}).values() if isinstance(e, BaseException)]
        found = next((told for told in map(disk_full, inner) if told is not None), None)
        if found is not None:
            return found
        seen = seen.__cause__ or seen.__context__
    return None
