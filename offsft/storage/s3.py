"""The two S3 clients: fsspec's for paths, pyarrow's for Parquet files and checkpoints.

Both take endpoint, region and credentials from the AWS_* variables of their process. Both retry a request after a
transient failure (500, 503, a dropped connection, a timeout), with growing pauses, a bounded number of times.
"""

import os
from typing import Any

import pyarrow.fs
from upath import UPath

_ATTEMPTS = 8
_CONNECT_S = 10.0
_ANSWER_S = 60.0


def path_of(url: str) -> UPath:
    """The path of an s3:// URL."""
    return UPath(url.rstrip("/"), **client_options(_ATTEMPTS))


def client_options(attempts: int) -> dict[str, Any]:
    """Options of fsspec's client. Listings are never cached: other processes write too."""
    return {
        "use_listings_cache": False,
        "client_kwargs": {"region_name": _region()},
        "config_kwargs": {
            "retries": {"mode": "standard", "total_max_attempts": attempts},
            "connect_timeout": _CONNECT_S,
            "read_timeout": _ANSWER_S,
        },
    }


class S3(pyarrow.fs.S3FileSystem):
    """pyarrow's client. When it is sent to another process, it is created again from that process's variables."""

    def __init__(self) -> None:
        scheme, _, endpoint = (_endpoint() or "").rpartition("://")
        super().__init__(
            region=_region(),
            scheme=scheme or "https",
            endpoint_override=endpoint or None,
            connect_timeout=_CONNECT_S,
            request_timeout=_ANSWER_S,
            retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            tls_ca_file_path=os.environ.get("AWS_CA_BUNDLE"),
        )

    def __reduce__(self) -> tuple[type["S3"], tuple[()]]:
        return S3, ()


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
