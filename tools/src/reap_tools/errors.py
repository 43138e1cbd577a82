"""What can go wrong, with the exit codes of reap_dist (docs/running.md)."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command."""

    DONE = 0
    USAGE = 2
    BAD_INPUT = 3
    IO = 4
    BUG = 70


class ReapToolsError(Exception):
    """An error that a user can cause: one line that says what, where, and what to do."""

    exit_code = ExitCode.BUG


class UsageError(ReapToolsError):
    """The command line or a recipe asks for something that cannot be."""

    exit_code = ExitCode.USAGE


class BadInputError(ReapToolsError):
    """An input file is not what it should be."""

    exit_code = ExitCode.BAD_INPUT


class RowError(Exception):
    """What is wrong with one row; who reads the row knows where it is."""
