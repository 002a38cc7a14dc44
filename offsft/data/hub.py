"""Data sets of the Hugging Face hub as local files: `hf://owner/name`, with a configuration or a revision if needed."""

import re
from typing import Any

from offsft.errors import ConfigError, DataError

HUB = "hf://"
_NAME = re.compile(
    r"hf://(?:datasets/)?(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?:/(?P<config>[\w.-]+))?/?"
)


def hub_files(path: str, split: str | None, setting: str) -> list[str]:
    """The Arrow files of one split of a data set, fetched by `datasets` into its cache if they are not there.

    `path` is `hf://owner/name`, `hf://owner/name/config` or `hf://owner/name@revision`. Only a single split is taken
    unasked. On a cluster HF_HOME must be on a disk that all nodes share.

    Raises:
        ConfigError: the name is not valid, `datasets` is not installed, or a split or configuration must be named.
        DataError: the data set cannot be fetched.
    """
    match = _NAME.fullmatch(path)
    if match is None:
        raise ConfigError(f"{setting}={path} is not a data set's name; write hf://owner/name or hf://owner/name/config")
    section = setting.partition(".")[0]
    config = match["config"]
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            f"{setting}={path} needs the package `datasets`, which is not installed; install it, or download the files"
        ) from None
    try:
        known: list[str] = datasets.get_dataset_config_names(match["name"], revision=match["revision"])
        if config is None and len(known) > 1 and "default" not in known:
            raise ConfigError(
                f"{setting}={path} has several configurations; add one: {path}/{known[0]}; it has {', '.join(known)}"
            )
        rows: Any = datasets.load_dataset(match["name"], config, revision=match["revision"])
    except ConfigError:
        raise
    except Exception as error:  # of many kinds: no network, no such data set, no access, a changed layout
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{setting}={path} cannot be fetched from Hugging Face: {reason}") from None
    if split is None and len(rows) > 1:
        raise ConfigError(
            f"{setting}={path} holds the splits {', '.join(rows)}; none is taken unasked: say which with {section}.split=..."
        )
    chosen = split or next(iter(rows))
    if chosen not in rows:
        raise ConfigError(f"{section}.split={chosen}: {path} has no such split; it has {', '.join(rows)}")
    return [each["filename"] for each in rows[chosen].cache_files]
