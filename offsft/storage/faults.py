"""Tell a full disk and a failing S3 from other faults, however the error was wrapped on its way to the driver."""

import errno
import re
from typing import Any

from upath import UPath

from offsft.errors import OffsftError, StorageError, chain
from offsft.storage.paths import StoragePath
from offsft.storage.s3 import client_options

_PROBE_ATTEMPTS = 3

_DISK_FULL_CODES = (errno.ENOSPC, errno.EDQUOT)
# Arrow and torch's writer raise their own error types, which keep at most the text of the cause.
_DISK_FULL_TEXTS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing file")

# How both clients name a fault: a botocore class, an error code of the service, and pyarrow's form of that code.
_WORDS = re.compile(
    r"\b(NoCredentialsError|PartialCredentialsError|EndpointConnectionError|ConnectTimeoutError|ReadTimeoutError"
    r"|ConnectionClosedError|ProxyConnectionError|SSLError)\b"
    r"|An error occurred \((\w+)\) when calling"
    r"|AWS Error ([A-Z_]+)(?: \(HTTP status (\d+)\))?"
)
_ADVICE = {
    "credentials": "there are no credentials for S3; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "bucket": "there is no such bucket; make it, or name another",
    "denied": "S3 refuses these credentials; they must be valid, and may list, read, write and delete below this path",
    "region": "the bucket lies in another region; set AWS_REGION to it",
    "reach": "S3 cannot be reached, also after several tries; are AWS_ENDPOINT_URL and the network right?",
    "busy": "S3 turns requests away, also after several tries; the same command continues once it answers again",
}
_KINDS = {
    "credentials": {"NoCredentialsError", "PartialCredentialsError"},
    "bucket": {"NoSuchBucket", "NO_SUCH_BUCKET"},
    "denied": {
        "AccessDenied", "Forbidden", "403", "ACCESS_DENIED", "InvalidAccessKeyId", "INVALID_ACCESS_KEY_ID",
        "SignatureDoesNotMatch", "SIGNATURE_DOES_NOT_MATCH", "ExpiredToken", "EXPIRED_TOKEN", "INVALID_CLIENT_TOKEN_ID",
    },
    "region": {"PermanentRedirect", "301", "AuthorizationHeaderMalformed"},
    "reach": {
        "EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError",
        "ProxyConnectionError", "SSLError", "NETWORK_CONNECTION",
    },
    "busy": {
        "SlowDown", "ServiceUnavailable", "InternalError", "500", "503", "SLOW_DOWN", "SERVICE_UNAVAILABLE",
        "INTERNAL_FAILURE", "RequestTimeout", "REQUEST_TIMEOUT",
    },
}  # fmt: skip


def disk_full(error: BaseException) -> OffsftError | None:
    """A user-facing error if any exception in the chain is a full disk, else None."""
    if not any(_is_disk_full(each) for each in chain(error)):
        return None
    return OffsftError(
        "the disk is full, or a quota is used up; all that was finished before is kept. Free some space (the"
        " temporary folder, TMPDIR, needs room for a checkpoint too); the same command continues from there"
    )


def storage_fault(error: BaseException, place: str = "s3") -> StorageError | None:
    """A user-facing error if any exception in the chain is a failure of S3, else None; it names the `place`."""
    kind = next((kind for kind in map(_kind, chain(error)) if kind is not None), None)
    return None if kind is None else StorageError(f"{place}: {_ADVICE[kind]}")


def check_reachable(path: StoragePath, setting: str) -> None:
    """Check that a path on S3 is reachable before work begins; a local path needs no check.

    Raises:
        StorageError: no credentials, no such bucket, no access, or no answer; names the `setting`.
    """
    if not isinstance(path, UPath):
        return
    bucket, _, prefix = path.path.partition("/")
    # A separate client that gives up sooner: nothing is lost yet.
    probe: Any = path.fs.__class__(**client_options(_PROBE_ATTEMPTS))
    probe.retries = 1
    try:
        probe.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except Exception as error:  # from several libraries; one that is not S3's is raised again
        told = storage_fault(error, f"{setting}={path}")
        if told is None:
            raise
        raise told from None


def _is_disk_full(error: BaseException) -> bool:
    code = getattr(error, "errno", None)
    return code in _DISK_FULL_CODES or any(text in str(error) for text in _DISK_FULL_TEXTS)


def _kind(error: BaseException) -> str | None:
    """The first of _KINDS that an error's class or message names."""
    for match in _WORDS.finditer(f"{type(error).__name__} {error}"):
        words = {word for word in match.groups() if word}
        for kind, named in _KINDS.items():
            if words & named:
                return kind
    return None
