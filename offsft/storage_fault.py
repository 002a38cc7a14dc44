"""Telling what is wrong with S3, whatever wrapped the error on its way to the user, and looking before work begins."""

import re
from typing import Any

from upath import UPath

from offsft.errors import StorageError
from offsft.s3 import client_options
from offsft.storage import StoragePath

_PROBE_ATTEMPTS = 3

# Both clients' words: a class of botocore's, an error code of the service, and what pyarrow makes of the code.
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


def storage_fault(error: BaseException, place: str = "s3") -> StorageError | None:
    """What to tell the user where S3 failed somewhere in an error's story; None where it did not."""
    seen: BaseException | None = error
    while seen is not None:
        kind = _kind(seen)
        if kind is not None:
            return StorageError(f"{place}: {_ADVICE[kind]}")
        inner = [e for e in getattr(seen, "worker_failures", {}).values() if isinstance(e, BaseException)]
        found = next((told for told in (storage_fault(e, place) for e in inner) if told is not None), None)
        if found is not None:
            return found
        seen = seen.__cause__ or seen.__context__
    return None


def check_reachable(path: StoragePath, setting: str) -> None:
    """Look at a place on S3 before work begins; a place on a disk needs no look.

    Raises:
        StorageError: no credentials, no such bucket, no access, or nobody answers; names the `setting`.
    """
    if not isinstance(path, UPath):
        return
    bucket, _, prefix = path.path.partition("/")
    # A client of its own, that gives up sooner: nothing is lost yet.
    probe: Any = path.fs.__class__(**client_options(_PROBE_ATTEMPTS))
    probe.retries = 1
    try:
        probe.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except Exception as error:  # of several libraries; one that is none of S3's is raised again
        told = storage_fault(error, f"{setting}={path}")
        if told is None:
            raise
        raise told from None


def _kind(error: BaseException) -> str | None:
    """The first of _KINDS that an error's class or words name."""
    for match in _WORDS.finditer(f"{type(error).__name__} {error}"):
        words = {word for word in match.groups() if word}
        for kind, named in _KINDS.items():
            if words & named:
                return kind
    return None
