"""Errors that a user can act on: each message says what was wrong, where, and what to do.

All take one message, so that they survive pickling between Ray processes.
"""


class OffsftError(Exception):
    """Base of every error whose message is meant for the user; entry points print it without a traceback."""


class ConfigError(OffsftError):
    """A setting is unknown, out of bounds, or impossible together with another."""


class DataError(OffsftError):
    """Input that cannot be used at all: missing, empty, or without one valid row."""


class ModelError(OffsftError):
    """A model folder that is missing, broken, or not supported."""


class EngineError(OffsftError):
    """A sampling engine that could not start, or died."""


class TrainingError(OffsftError):
    """Training that cannot go on, such as a non-finite loss."""


class RunFolderError(OffsftError):
    """A run's folder that belongs to another experiment or holds an incomplete stage."""


class StorageError(OffsftError):
    """An object store that cannot be reached, or refuses."""
