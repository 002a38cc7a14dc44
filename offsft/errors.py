"""Errors that a user can act on: each message says what was wrong, where, and what to do.

All take a single message, so that they survive pickling between Ray processes.
"""

from collections.abc import Iterator


class OffsftError(Exception):
    """Base of every error whose message is meant for the user; entry points print it without a traceback."""


class ConfigError(OffsftError):
    """A setting that is unknown, out of bounds, or incompatible with another."""


class DataError(OffsftError):
    """Input that cannot be used at all: missing, empty, or without a valid row."""


class ModelError(OffsftError):
    """A model folder that is missing, broken, or not supported."""


class EngineError(OffsftError):
    """A sampling engine that could not start, or died."""


class TrainingError(OffsftError):
    """Training that cannot go on, such as a non-finite loss."""


class RunFolderError(OffsftError):
    """A run's folder that belongs to another experiment, or holds an incomplete stage."""


class StorageError(OffsftError):
    """An object store that cannot be reached, or that refuses a request."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an error and its origins: causes or contexts, and the workers' errors that Ray Train collects.

    The outermost comes first, and each comes once, even if a chain leads back to itself.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        workers = getattr(one, "worker_failures", {}).values()
        waiting.append(one.__cause__ or one.__context__)
        # Popped before the cause: a worker's error is nearer to the root cause than Ray's wrapper.
        waiting += [each for each in workers if isinstance(each, BaseException)][::-1]
