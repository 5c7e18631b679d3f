"""Expected failures, each kind with its exit code.

A message is one line: what is wrong, where, what is allowed, how to fix it.
"""


class AjbenchError(Exception):
    """Base of all expected failures; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(AjbenchError):
    """A wrong option, recipe key or value."""

    exit_code = 2


class MissingError(AjbenchError):
    """Data, weights, an earlier stage, disk space or memory is missing."""

    exit_code = 3


class NumericError(AjbenchError):
    """A NaN loss, a singular matrix, or with `--strict` a failed audit."""

    exit_code = 4


class IntegrityError(AjbenchError):
    """A corrupt shard or checkpoint, an unsafe file, or outputs made with other settings."""

    exit_code = 5
