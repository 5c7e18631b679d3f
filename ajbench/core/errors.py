"""Expected failures, each kind with its exit code.

A message is one line: what is wrong, where, what is allowed, how to fix it.
"""

from pathlib import Path


class AjbenchError(Exception):
    """Base of all expected failures; the command line prints the message and exits with `exit_code`."""

    exit_code = 1


class UsageError(AjbenchError):
    """A wrong option, recipe key or value."""

    exit_code = 2


class MissingError(AjbenchError):
    """Data, weights, an earlier stage, disk space or memory is missing."""

    exit_code = 3


class UnfinishedError(MissingError):
    """An earlier stage is missing.

    Args:
        home: folder of the recipe's stages.
        problem: what is missing, and where.
        stage: its name.
        what: distinguishes it from others of this name.
        fold: of the evaluation clips that it does without.
    """

    def __init__(self, home: Path, problem: str, stage: str, what: str = "", fold: int | None = None) -> None:
        command = "train-cls" if stage == "tune" else stage  # it tunes its arm first
        which = f" ({what})" if what else ""
        super().__init__(f"{problem}; first run `ajbench {command}`{which} with the same recipe")
        self.home, self.problem, self.stage, self.what, self.fold = home, problem, stage, what, fold


class NumericError(AjbenchError):
    """A NaN loss, a singular matrix, or with `--strict` a failed audit."""

    exit_code = 4


class IntegrityError(AjbenchError):
    """A corrupt shard or checkpoint, an unsafe file, or outputs made with other settings."""

    exit_code = 5
