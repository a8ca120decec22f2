"""Errors that a user can act on: the command line prints their message as one line, without a traceback."""


class PocketiqaError(Exception):
    """Something the user can mend; the message names the value received and the next step."""


class OutputConflictError(PocketiqaError):
    """An output folder already holds something that this command must not mix with."""


class TamperedError(PocketiqaError):
    """A file does not match the digest recorded when it was written."""


class StorageFullError(PocketiqaError):
    """The disk or quota is full; everything committed before is still valid."""
