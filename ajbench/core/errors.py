"""The few ways in which ajbench refuses to go on, each with its exit code.

A message is one line: what is wrong, where, what is allowed, what to do.
"""


class AjbenchError(Exception):
    """Base of every expected failure; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(AjbenchError):
    """Wrong option, recipe key or value."""

    exit_code = 2


class MissingError(AjbenchError):
    """Data, weights, an earlier stage, disk or memory that is not there."""

    exit_code = 3


class NumericError(AjbenchError):
    """NaN loss, singular input, or a failed audit under `--strict`."""

    exit_code = 4


class IntegrityError(AjbenchError):
    """A corrupt shard or checkpoint, an unsafe file, or work made under other settings."""

    exit_code = 5
