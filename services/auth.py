"""API keys: several, named, compared in constant time, reloaded when their file changes."""

import hashlib
import hmac
import ipaddress
import logging
import os
import re
import time
from pathlib import Path

from offsft.errors import ConfigError

ENVIRONMENT = "OFFSFT_API_KEYS"
_LEAST_CHARACTERS = 16
_CHECK_S = 1.0
_LINE = re.compile(r"(?P<name>[\w.@-]+)\s*:\s*(?P<key>\S+)")

logger = logging.getLogger(__name__)


class Keys:
    """The keys that open /v1. Without keys it is open to all, which only loopback allows (see `refuse_open_door`)."""

    def __init__(self, file: str | None = None) -> None:
        """Read the keys from `file`, else from OFFSFT_API_KEYS (separated by commas); with neither there are none.

        Raises:
            ConfigError: naming the wrong line, never its key.
        """
        self._file = Path(file) if file else None
        self._checked_s = time.monotonic()
        self._stamp: tuple[int, int] | None = None
        if self._file:
            self._digests = self._read()
        else:
            self._digests = _parse(os.environ.get(ENVIRONMENT, "").split(","), ENVIRONMENT)

    @property
    def required(self) -> bool:
        return self._file is not None or bool(self._digests)

    def owner(self, presented: str) -> str | None:
        """The name of the presented key, or None if it is unknown."""
        self._refresh()
        digest = hashlib.sha256(presented.encode("utf-8", "replace")).digest()
        found = None
        for name, known in self._digests.items():  # all of them, so that the time reveals nothing
            if hmac.compare_digest(digest, known):
                found = name
        return found

    def _refresh(self) -> None:
        if self._file is None or time.monotonic() - self._checked_s < _CHECK_S:
            return
        self._checked_s = time.monotonic()
        try:
            if self._stamp != _stamp(self._file):
                self._digests = self._read()
        except (ConfigError, OSError) as error:
            logger.error("the API keys stay as they were: %s", error)

    def _read(self) -> dict[str, bytes]:
        assert self._file is not None
        try:
            self._stamp = _stamp(self._file)
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"keys_file={self._file} cannot be read: {error}") from None
        keys = _parse(lines, str(self._file))
        if not keys:
            raise ConfigError(f"keys_file={self._file} holds no key; write one `name: key` a line")
        return keys


def refuse_open_door(host: str, keys: Keys) -> None:
    """Require keys on any address but loopback.

    Raises:
        ConfigError: saying how to set keys.
    """
    if keys.required or _is_loopback(host):
        return
    raise ConfigError(
        f"host {host} can be reached from other machines, and there are no API keys: set {ENVIRONMENT}=name:key or the"
        " gateway's keys_file, or serve on 127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_mtime_ns, stat.st_size


def _parse(lines: list[str], where: str) -> dict[str, bytes]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ConfigError(f"{where}, entry {number}: write `name: key`, without spaces in either")
        if len(match["key"]) < _LEAST_CHARACTERS:
            raise ConfigError(
                f"{where}, entry {number}: the key {match['name']} has under {_LEAST_CHARACTERS} characters"
            )
        if match["name"] in keys:
            raise ConfigError(f"{where}, entry {number}: there are two keys named {match['name']}")
        keys[match["name"]] = hashlib.sha256(match["key"].encode()).digest()
    return keys
